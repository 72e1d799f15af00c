"""A stream program on disk, so that worker processes and verify can load it.

A program is a folder of three files:

    program.json               ports, states, rewrites and model facts
    initial.safetensors        initial value of every state, logical shape
    graph.pt2                  the exported graph with its weights (`torch.export.save`)

The folder is an exchange format between processes of one installed version, not an archive: torch
does not promise to read a `.pt2` of another version.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from mvtool.converters.pt2 import load_exported, save_exported
from mvtool.errors import ConversionError, StorageError
from mvtool.files import atomic_path
from mvtool.ports import Document, InputPort, LogicalState, OutputPort, StateForm, TensorPort
from mvtool.program import ModelInfo, RewriteReport, Slots, StateSpec, StreamProgram

JSON_FILE = "program.json"
INITIAL_FILE = "initial.safetensors"
GRAPH_FILE = "graph.pt2"


class _State(Document):
    logical: LogicalState
    form: StateForm
    input: TensorPort
    output: TensorPort
    slots: Slots | None = None


class _Program(Document):
    format: Literal["mvtool.program/1"] = "mvtool.program/1"
    info: ModelInfo
    inputs: tuple[InputPort, ...]
    states: tuple[_State, ...]
    outputs: tuple[OutputPort, ...]
    rewrites: tuple[RewriteReport, ...] = Field(default=())


def save_program(program: StreamProgram, folder: str | os.PathLike[str]) -> Path:
    """Write `program` into `folder`, which is made if it does not exist.

    The folder takes the place of its predecessor as a whole. The same program gives the same bytes in
    every process.

    Raises:
        StorageError: The folder cannot be written.
        ConversionError: torch cannot serialize the graph.
    """
    from safetensors.numpy import save

    target = Path(folder)
    document = _Program(
        info=program.info,
        inputs=program.inputs,
        states=tuple(
            _State(logical=s.logical, form=s.form, input=s.input, output=s.output, slots=s.slots)
            for s in program.states
        ),
        outputs=program.outputs,
        rewrites=program.rewrites,
    )
    initial = {state.logical.name: np.array(state.initial, order="C") for state in program.states}
    try:
        with atomic_path(target) as folder_in_progress:
            folder_in_progress.mkdir()
            _forget_history(program)
            # Through memory: on a full disk torch's own writer ends the process instead of raising.
            graph = io.BytesIO()
            save_exported(program.exported, graph)
            (folder_in_progress / GRAPH_FILE).write_bytes(graph.getbuffer())
            (folder_in_progress / INITIAL_FILE).write_bytes(save(initial))
            (folder_in_progress / JSON_FILE).write_text(document.model_dump_json(indent=1), "utf-8")
    except OSError as error:
        raise StorageError.of(error) or ConversionError(_unwritten(target, error)) from error
    except RuntimeError as error:
        raise ConversionError(_unwritten(target, error)) from error
    return target


def load_program(folder: str | os.PathLike[str]) -> StreamProgram:
    """Read a program that `save_program` wrote.

    Raises:
        ConversionError: A file is missing, truncated or does not fit the others.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    source = Path(folder)
    try:
        document = _Program.model_validate_json((source / JSON_FILE).read_bytes())
        initial = load_file(source / INITIAL_FILE)
        exported = load_exported(source / GRAPH_FILE)
        states = tuple(
            StateSpec(s.logical, s.form, initial[s.logical.name], s.input, s.output, s.slots) for s in document.states
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConversionError(
            f"{source} does not hold a readable stream program: {type(error).__name__}: {error}. "
            f"Expected {JSON_FILE}, {INITIAL_FILE} and {GRAPH_FILE} of this version of mvtool and torch; convert again."
        ) from error
    return StreamProgram(
        exported=exported,
        info=document.info,
        inputs=document.inputs,
        states=states,
        outputs=document.outputs,
        rewrites=document.rewrites,
    )


def _unwritten(target: Path, error: Exception) -> str:
    return f"The stream program cannot be written to {target}: {error}"


def _forget_history(program: StreamProgram) -> None:
    # torch keeps the history of each node with memory addresses in it, so no two processes would write the same.
    for node in program.exported.graph.nodes:
        node.meta.pop("from_node", None)
