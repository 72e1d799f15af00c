"""From a lowered program to the bytes of a float `.tflite`, by litert-torch."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mvtool.converters.decomposition import in_one_pass
from mvtool.converters.tflite_graph import PURPOSE, Graph
from mvtool.converters.tflite_layout import channels_last_inside
from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.program import StreamProgram

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

SIGNATURE = "serving_default"


def export_float(program: StreamProgram) -> Graph:
    """Convert a lowered program.

    Args:
        program: Its graph takes and gives port arrays.

    Returns:
        A float graph whose ports have the program's names and order.

    Raises:
        ConversionError: litert-torch cannot convert the graph.
    """
    exported = channels_last_inside(program.exported)
    try:
        with _quiet():
            data = _convert(exported, [p.name for p in program.input_ports])
    except Exception as error:
        raise ConversionError(
            f"litert-torch cannot convert {program.info.name}: {_first_line(error)}. "
            "The operators named here have no TFLite form; replace them in the module."
        ) from error
    graph = Graph.parse(data)
    _name_ports(graph, program)
    return graph


def _convert(exported: ExportedProgram, input_names: list[str]) -> bytes:
    """litert-torch behind its front door.

    `litert_torch.convert` would export the module again and decompose it three times, which is two thirds
    of its time; a lowered program needs only the last of these steps (litert-torch 0.10).
    """
    require("litert_torch", PURPOSE)
    import torch
    from litert_torch import fx_infra
    from litert_torch._convert import fx_passes, litert_converter, signature

    passes = [
        fx_passes.EliminateDeadCodePass(),
        fx_passes.OptimizeLayoutTransposesPass(),
        fx_passes.BuildAtenCompositePass(),
    ]
    exported = fx_infra.run_passes(exported, passes)
    values = [torch.zeros(shape, dtype=dtype) for shape, dtype in _user_inputs(exported)]
    sample = dict(zip(input_names, values, strict=True))
    described = signature.Signature(SIGNATURE, torch.nn.Module(), None, sample)
    with in_one_pass():
        return bytes(litert_converter.exported_programs_to_flatbuffer([exported], [described]).to_bytes())


def _user_inputs(exported: ExportedProgram) -> list[tuple[tuple[int, ...], torch.dtype]]:
    wanted = exported.graph_signature.user_inputs
    values = {n.name: n.meta["val"] for n in exported.graph.nodes if n.op == "placeholder"}
    return [(tuple(values[str(name)].shape), values[str(name)].dtype) for name in wanted]


def _name_ports(graph: Graph, program: StreamProgram) -> None:
    """Name and order the ports as the program does; the converter keeps the order of arguments and results."""
    ports = (program.input_ports, program.output_ports)
    for side, tensors, expected in zip(("input", "output"), (graph.inputs, graph.outputs), ports, strict=True):
        found = [graph.shape(t) for t in tensors]
        if found != [p.shape for p in expected]:
            raise ConversionError(
                f"litert-torch wrote {side}s of the shapes {found}, expected {[p.shape for p in expected]}. "
                "This converter version is not supported."
            )
    _separate_outputs(graph)
    graph.set_ports(
        [(p.name, t) for p, t in zip(program.input_ports, graph.inputs, strict=True)],
        [(p.name, t) for p, t in zip(program.output_ports, graph.outputs, strict=True)],
    )


def _separate_outputs(graph: Graph) -> None:
    """Give every output a tensor of its own, so that each can carry its name.

    An output that is an input or a constant, or that appears twice, is written by a RESHAPE to its own shape.
    """
    import numpy as np

    taken = {*graph.inputs}
    outputs, copies = [], []
    written = graph.writers()
    for position, tensor in enumerate(graph.outputs):
        if tensor in taken or tensor not in written:
            shape = graph.add_constant(f"output{position}_shape", np.asarray(graph.shape(tensor), dtype=np.int32))
            copy = graph.add_tensor(f"output{position}", graph.shape(tensor), graph.dtype(tensor))
            copies.append(graph.new_operator("RESHAPE", [tensor, shape], [copy], "ReshapeOptions"))
            copies[-1].builtinOptions.newShape = list(graph.shape(tensor))
            tensor = copy
        taken.add(tensor)
        outputs.append(tensor)
    graph.replace_operators([*graph.operators, *copies])
    graph.body.outputs = outputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """litert-torch reports its progress on standard output and warns about its own dependencies."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"[:500]
