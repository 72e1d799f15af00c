"""The operators of a `.pte` as `mvtool.profiling.written`, with the place behind each where the program can be cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mvtool.ports import PortManifest, Precision
from mvtool.profiling.pte_file import Place, PteFile, XnnGraph
from mvtool.profiling.written import Weight, Written, WrittenGraph, convolution_macs, shape_text

PREFIX = "XNN"
CONVOLUTIONS = ("XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d")
WEIGHTED = (*CONVOLUTIONS, "XNNFullyConnected")
PRODUCT = "XNNBatchMatrixMultiply"
BYTES = {
    "fp32": 4,
    "fp16": 2,
    "bf16": 2,
    "qint8": 1,
    "quint8": 1,
    "qcint8": 1,
    "qdint8": 1,
    "int32": 4,
    "qint32": 4,
    "qcint32": 4,
}
SCALAR_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "CHAR": "int8",
    "BYTE": "uint8",
    "INT": "int32",
    "LONG": "int64",
    "BOOL": "bool",
}


def read(file: PteFile, ports: PortManifest) -> tuple[WrittenGraph, list[Place | None]]:
    """List the operators of a program.

    Args:
        file: The program.
        ports: Its manifest.

    Returns:
        The operators in order of execution, and the place behind each; None where a program cannot end there.
    """
    reader = _Reader(file)
    for index, call in enumerate(file.instructions):
        graph = file.delegate_of(index)
        if graph is not None:
            reader.delegate(index, graph, call.args)
        elif hasattr(call, "op_index"):
            reader.kernel(index, call)
    named = {file.plan.inputs[port.position]: port.name for port in ports.input_ports}
    named |= {file.plan.outputs[port.position]: port.name for port in ports.output_ports}
    return WrittenGraph(tuple(reader.operators), named), reader.places


class _Reader:
    """Collects operators; tensors are named by the plan's values, those inside a delegate by numbers beyond."""

    def __init__(self, file: PteFile) -> None:
        self._file = file
        self._inner = len(file.plan.values)
        self.operators: list[Written] = []
        self.places: list[Place | None] = []

    def delegate(self, index: int, graph: XnnGraph, arguments: Sequence[int]) -> None:
        """All nodes of a delegate."""
        names = {}
        for tensor in graph.tensors:
            place = graph.external(tensor)
            names[tensor] = self._inner + tensor if place is None else arguments[place]
        self._inner += max(graph.tensors, default=0) + 1
        last = len(graph.nodes)
        for count, node in enumerate(graph.nodes, 1):
            self.operators.append(_node(graph, node, names))
            whole = Place(index + 1)
            self.places.append(whole if count == last else Place(index, count) if graph.can_be_cut(count) else None)

    def kernel(self, index: int, call: Any) -> None:
        """A portable kernel outside the delegates."""
        operator = self._file.plan.operators[call.op_index]
        values = [self._file.plan.values[argument].val for argument in call.args]
        tensors = [(a, v) for a, v in zip(call.args, values, strict=True) if hasattr(v, "scalar_type")]
        *read, result = tensors or [(call.args[-1], None)]
        shapes = [tuple(value.sizes) for _, value in tensors]
        kind = ".".join(filter(None, (operator.name, operator.overload)))
        dtypes = dict.fromkeys(SCALAR_TYPES.get(value.scalar_type.name, value.scalar_type.name) for _, value in tensors)
        macs = math.prod(shapes[-1]) * math.prod(shapes[1][1:]) if kind.startswith("aten::convolution") else None
        self.operators.append(
            Written(
                kind=kind,
                label=kind,
                reads=tuple(argument for argument, _ in read),
                writes=(result[0],),
                shapes=shape_text(shapes[0], shapes[-1]) if shapes else "",
                moved_bytes=4 * sum(map(math.prod, shapes)),
                macs=macs,
                arithmetic=None if macs is None else Precision.FP32,
                dtypes=tuple(dtypes),
            )
        )
        self.places.append(Place(index + 1))


def _node(graph: XnnGraph, node: Mapping[str, Any], names: Mapping[int, int]) -> Written:
    kind, fields = node["xnode_union_type"], node["xnode_union"]
    reads, writes = graph.reads(node), graph.writes(node)
    macs = _macs(graph, kind, fields, reads, writes)
    held = graph.weight(fields["filter_id"]) if kind in WEIGHTED else None
    result = graph.dims(writes[0]) if writes else ()
    return Written(
        kind=kind.removeprefix(PREFIX),
        label=_label(kind, fields),
        reads=tuple(names[tensor] for tensor in reads),
        writes=tuple(names[tensor] for tensor in writes),
        shapes=shape_text(graph.dims(reads[0]) if reads else (), result),
        moved_bytes=sum(_bytes(graph, tensor) for tensor in graph.operands(node)),
        macs=macs,
        weight=None if held is None else Weight(*held),
        arithmetic=None if macs is None else _arithmetic(graph, kind, fields, reads),
        dtypes=tuple(dict.fromkeys(_dtype(graph, tensor) for tensor in (*reads, *writes))),
    )


def _label(kind: str, fields: Mapping[str, Any]) -> str:
    short = kind.removeprefix(PREFIX)
    return f"{short} {fields['kernel_height']}x{fields['kernel_width']}" if kind in CONVOLUTIONS else short


def _macs(
    graph: XnnGraph, kind: str, fields: Mapping[str, Any], reads: Sequence[int], writes: Sequence[int]
) -> int | None:
    """From the shapes; pictures are (N, H, W, C), a dense weight is (outputs, inputs)."""
    if kind == PRODUCT:
        return math.prod(graph.dims(writes[0])) * graph.dims(reads[0])[-1]
    if kind not in WEIGHTED:
        return None
    result = math.prod(graph.dims(writes[0]))
    if kind == "XNNFullyConnected":
        return result * math.prod(graph.dims(fields["filter_id"])[1:])
    kernel = int(fields["kernel_height"]), int(fields["kernel_width"])
    if kind == "XNNConvTranspose2d":
        return math.prod(graph.dims(reads[0])) * math.prod(kernel) * int(fields["group_output_channels"])
    depth = 1 if kind == "XNNDepthwiseConv2d" else int(fields["group_input_channels"])
    return convolution_macs(graph.dims(writes[0]), kernel, depth)


def _arithmetic(graph: XnnGraph, kind: str, fields: Mapping[str, Any], reads: Sequence[int]) -> Precision:
    """int8 where both factors are; float activations with int8 weights are multiplied in float32."""
    other = fields["filter_id"] if kind in WEIGHTED else reads[-1]
    both = (_dtype(graph, reads[0]), _dtype(graph, other))
    return (
        Precision.INT8
        if all(name.startswith(("qint8", "qcint8", "qdint8", "qpint8")) for name in both)
        else Precision.FP32
    )


def _dtype(graph: XnnGraph, tensor: int) -> str:
    return str(graph.tensors[tensor]["datatype"]).removeprefix("xnn_datatype_")


def _bytes(graph: XnnGraph, tensor: int) -> int:
    return math.prod(graph.dims(tensor)) * BYTES.get(_dtype(graph, tensor), 1)
