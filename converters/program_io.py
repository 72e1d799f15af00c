"""A stream program on disk, so that worker processes and verify can load it.

A program is a folder of three files:

    program.json               ports, states, rewrites and model facts; written last
    initial.safetensors        initial value of every state, logical shape
    graph.pt2                  the exported graph with its weights (`torch.export.save`)

The folder is an exchange format between processes of one installed version, not an archive: torch
does not promise to read a `.pt2` of another version.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.ports import Document, InputPort, LogicalState, OutputPort, StateForm, TensorPort
from mvtool.program import ModelInfo, RewriteReport, StateSpec, StreamProgram

JSON_FILE = "program.json"
INITIAL_FILE = "initial.safetensors"
GRAPH_FILE = "graph.pt2"


class _State(Document):
    logical: LogicalState
    form: StateForm
    input: TensorPort
    output: TensorPort


class _Program(Document):
    format: Literal["mvtool.program/1"] = "mvtool.program/1"
    info: ModelInfo
    inputs: tuple[InputPort, ...]
    states: tuple[_State, ...]
    outputs: tuple[OutputPort, ...]
    rewrites: tuple[RewriteReport, ...] = Field(default=())


def save_program(program: StreamProgram, folder: str | os.PathLike[str]) -> Path:
    """Write `program` into `folder`, which is made if it does not exist.

    Every file replaces its predecessor atomically and `program.json` comes last. The same program
    gives the same bytes in every process.

    Raises:
        ConversionError: The folder cannot be written, or torch cannot serialize the graph.
    """
    from safetensors.numpy import save_file

    torch = require("torch", "to save an exported graph")
    target = Path(folder)
    document = _Program(
        info=program.info,
        inputs=program.inputs,
        states=tuple(_State(logical=s.logical, form=s.form, input=s.input, output=s.output) for s in program.states),
        outputs=program.outputs,
        rewrites=program.rewrites,
    )
    try:
        target.mkdir(parents=True, exist_ok=True)
        _replace(target / GRAPH_FILE, lambda path: torch.export.save(program.exported, path))
        initial = {state.logical.name: state.initial.copy() for state in program.states}
        _replace(target / INITIAL_FILE, lambda path: save_file(initial, path))
        _replace(target / JSON_FILE, lambda path: path.write_text(document.model_dump_json(indent=1), "utf-8"))
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"The stream program cannot be written to {target}: {error}") from error
    return target


def load_program(folder: str | os.PathLike[str]) -> StreamProgram:
    """Read a program that `save_program` wrote.

    Raises:
        ConversionError: A file is missing, truncated or does not fit the others.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    torch = require("torch", "to load an exported graph")
    source = Path(folder)
    try:
        document = _Program.model_validate_json((source / JSON_FILE).read_bytes())
        initial = load_file(source / INITIAL_FILE)
        exported = torch.export.load(source / GRAPH_FILE)
        states = tuple(
            StateSpec(logical=s.logical, form=s.form, initial=initial[s.logical.name], input=s.input, output=s.output)
            for s in document.states
        )
    except (OSError, RuntimeError, KeyError, ValidationError, SafetensorError) as error:
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


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    # The suffix stays last: torch.export.save warns about names that do not end in .pt2.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
