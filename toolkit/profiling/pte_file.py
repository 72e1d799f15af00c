"""A `.pte` that can be cut: its plan, and the XNNPACK graphs of its delegates, as ExecuTorch's own tools read and write them.

Written against executorch 1.4.1, whose serializers these are; a delegate's graph is handled as JSON of its schema.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.errors import RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray

PURPOSE = "to cut ExecuTorch programs"
METHOD = "forward"
EXTERNAL_INPUT, EXTERNAL_OUTPUT, INTERNAL = 1, 2, 2**32 - 1
"""`XNN_VALUE_FLAG_EXTERNAL_INPUT`, `..._OUTPUT` and `XNN_INVALID_VALUE_ID` of `xnnpack.h`."""
ALIGNMENT = 16
NOT_FINITE = re.compile(r"([:\[,]\s*)([-+]?(?:inf|nan))(?=\s*[,\]}])")
SCALARS = {
    "xnn_datatype_fp32": ("FLOAT", 4),
    "xnn_datatype_fp16": ("HALF", 2),
    "xnn_datatype_qint8": ("CHAR", 1),
    "xnn_datatype_quint8": ("BYTE", 1),
    "xnn_datatype_int32": ("INT", 4),
}
"""Types that can leave a delegate, with ExecuTorch's name and the bytes of one value."""
NUMPY = {"xnn_datatype_fp32": np.float32, "xnn_datatype_qint8": np.int8, "xnn_datatype_qcint8": np.int8}


@dataclass(frozen=True)
class Place:
    """A place between two operators where a program can be cut.

    Attributes:
        instruction: Instructions of the plan that are left whole.
        nodes: Nodes that are left of the delegate that the next instruction calls; 0 if none.
    """

    instruction: int
    nodes: int = 0


class XnnGraph:
    """The graph of one delegate.

    Args:
        document: JSON of `schema.fbs` of the XNNPACK backend.
        constants: Key to the bytes of a constant.
    """

    def __init__(self, document: dict[str, Any], constants: Mapping[str, bytes]) -> None:
        """Nothing is copied."""
        self.document = document
        self._constants = constants
        self.tensors = {tensor_of(value)["id_out"]: tensor_of(value) for value in document["xvalues"]}
        self._values = {tensor_of(value)["id_out"]: value["xvalue_union"] for value in document["xvalues"]}

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Operators in order: `xnode_union_type` and `xnode_union`."""
        found: list[dict[str, Any]] = self.document["xnodes"]
        return found

    def reads(self, node: Mapping[str, Any]) -> list[int]:
        """Computed tensors and ports that a node reads."""
        fields = node["xnode_union"]
        found = [value for name, value in fields.items() if name.endswith("_id") and not _makes(name)]
        return [t for t in dict.fromkeys(found) if t in self.tensors and not self.tensors[t]["constant_buffer_idx"]]

    def operands(self, node: Mapping[str, Any]) -> list[int]:
        """All tensors of a node, constants and results included."""
        found = [value for name, value in node["xnode_union"].items() if name.endswith("_id")]
        return [tensor for tensor in dict.fromkeys(found) if tensor in self.tensors]

    def writes(self, node: Mapping[str, Any]) -> list[int]:
        """Tensors that a node makes."""
        fields = node["xnode_union"]
        return [value for name, value in fields.items() if _makes(name) and value in self.tensors]

    def dims(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor, as XNNPACK holds it."""
        return tuple(int(size) for size in self.tensors[tensor]["dims"])

    def external(self, tensor: int) -> int | None:
        """Position of a tensor among the arguments of the delegate's call."""
        place = self.tensors[tensor]["external_id"]
        return None if place == INTERNAL else int(place)

    def weight(self, tensor: int) -> tuple[AnyArray, float] | None:
        """Real values of a constant and the largest distance of its steps; None for what is none or of another type."""
        held, union = self.tensors[tensor], self._values[tensor]
        kind = NUMPY.get(held["datatype"])
        raw = self._constant(held["constant_buffer_idx"])
        if kind is None or raw is None:
            return None
        values = np.frombuffer(raw, kind).reshape(held["dims"]).astype(np.float32)
        parameters = union.get("quant_params")
        if not parameters:
            return values, 0.0
        if "channel_dim" not in parameters:
            return values * np.float32(parameters["scale"]), float(parameters["scale"])
        scales = self._scales(parameters)
        if scales is None:
            return None
        shape = [1] * values.ndim
        shape[parameters["channel_dim"]] = len(scales)
        return values * scales.reshape(shape), float(scales.max())

    def _scales(self, parameters: Mapping[str, Any]) -> AnyArray | None:
        if parameters["scale"]:
            return np.asarray(parameters["scale"], np.float32)
        raw = self._constant(parameters["scale_buffer_idx"])
        return None if raw is None else np.frombuffer(raw, np.float32)[: parameters["num_scales"]]

    def _constant(self, index: int) -> bytes | None:
        if not index:
            return None
        entry = self.document["constant_data"][index]
        raw = self._constants.get(entry["named_key"])
        return None if raw is None else raw[: entry["size"]]

    def live(self, count: int) -> list[int]:
        """Tensors that the first `count` nodes make and that later ones, or the caller, read."""
        made = {tensor for node in self.nodes[:count] for tensor in self.writes(node)}
        wanted = {tensor for node in self.nodes[count:] for tensor in self.reads(node)}
        wanted |= set(self.document["output_ids"])
        return sorted(made & wanted)

    def can_be_cut(self, count: int) -> bool:
        """Whether all that is live after `count` nodes can leave the delegate."""
        return all(self.tensors[tensor]["datatype"] in SCALARS for tensor in self.live(count))

    def cut(self, count: int) -> tuple[XnnGraph, list[int]]:
        """The first `count` nodes, with what is live after them as outputs.

        Returns:
            The shorter graph, and its outputs in the order in which they follow the inputs among the call's arguments.
        """
        document = copy.deepcopy(self.document)
        outputs, inputs = self.live(count), document["input_ids"]
        document["xnodes"] = document["xnodes"][:count]
        used = {*inputs, *outputs, *(tensor for node in document["xnodes"] for tensor in self.operands(node))}
        document["xvalues"] = [value for value in document["xvalues"] if tensor_of(value)["id_out"] in used]
        for value in document["xvalues"]:
            tensor = tensor_of(value)
            if tensor["id_out"] in inputs:
                continue
            leaves = tensor["id_out"] in outputs
            tensor["external_id"] = len(inputs) + outputs.index(tensor["id_out"]) if leaves else INTERNAL
            tensor["flags"] = EXTERNAL_OUTPUT if leaves else 0
        document["output_ids"], document["num_externs"] = outputs, len(inputs) + len(outputs)
        return XnnGraph(document, self._constants), outputs


class PteFile:
    """A parsed `.pte` whose method `forward` can be cut.

    Args:
        path: The file.

    Raises:
        MissingExtraError: executorch is not installed.
        RuntimeLoadError: The file has no method `forward`, or a delegate is none of XNNPACK's.
    """

    def __init__(self, path: Path) -> None:
        """Parse the file and its delegates."""
        self._serialize = require("executorch.exir._serialize._program", PURPOSE)
        self._schema = require("executorch.exir.schema", PURPOSE)
        self._scalar = require("executorch.exir.scalar_type", PURPOSE).ScalarType
        self._file = self._serialize.deserialize_pte_binary(path.read_bytes())
        plans = [plan for plan in self._file.program.execution_plan if plan.name == METHOD]
        if not plans or len(plans[0].chains) != 1:
            raise RuntimeLoadError(f"{path} has no method {METHOD!r} of one chain. Convert the model again.")
        self.plan = plans[0]
        self._file.program.execution_plan = plans
        self.constants = self._named_constants()
        self.graphs = [self._graph(index) for index in range(len(self.plan.delegates))]

    @property
    def instructions(self) -> list[Any]:
        """Instructions of the plan, in order."""
        return [instruction.instr_args for instruction in self.plan.chains[0].instructions]

    def delegate_of(self, instruction: int) -> XnnGraph | None:
        """Graph of the delegate that an instruction calls, None for others."""
        call = self.instructions[instruction]
        return self.graphs[call.delegate_index] if hasattr(call, "delegate_index") else None

    def until(self, place: Place) -> bytes:
        """The program that ends at a place, with the same inputs."""
        # The plan alone is copied; weights and other delegates are shared.
        plan, program = copy.deepcopy(self.plan), copy.copy(self._file.program)
        program.backend_delegate_data = list(self._file.program.backend_delegate_data)
        program.execution_plan = [plan]
        rest = plan.chains[0].instructions[place.instruction] if place.nodes else None
        plan.chains[0].instructions = plan.chains[0].instructions[: place.instruction]
        if rest is not None:
            graph = self.graphs[rest.instr_args.delegate_index]
            shorter, outputs = graph.cut(place.nodes)
            made = self._give_places(plan, [graph.tensors[tensor] for tensor in outputs])
            rest.instr_args.args = [*rest.instr_args.args[: len(graph.document["input_ids"])], *made]
            delegate = plan.delegates[rest.instr_args.delegate_index]
            program.backend_delegate_data[delegate.processed.index] = self._schema.BackendDelegateInlineData(
                data=_binary(shorter.document)
            )
            plan.chains[0].instructions.append(rest)
            plan.outputs = made
        pte = self._serialize.PTEFile(
            program=program, mutable_data=self._file.mutable_data, named_data=self._file.named_data
        )
        return bytes(self._serialize.serialize_pte_binary(pte))

    def _give_places(self, plan: Any, tensors: Sequence[Mapping[str, Any]]) -> list[int]:
        """Append tensors behind all others in the plan's memory, and tell their indices."""
        schema, made = self._schema, []
        end = plan.non_const_buffer_sizes[1]
        for tensor in tensors:
            scalar, size = SCALARS[tensor["datatype"]]
            start = -(-end // ALIGNMENT) * ALIGNMENT
            end = start + size * int(np.prod(tensor["dims"], dtype=np.int64))
            place = schema.AllocationDetails(memory_id=1, memory_offset_low=start, memory_offset_high=0)
            value = schema.Tensor(
                scalar_type=getattr(self._scalar, scalar),
                storage_offset=0,
                sizes=[int(length) for length in tensor["dims"]],
                dim_order=list(range(len(tensor["dims"]))),
                requires_grad=False,
                layout=0,
                data_buffer_idx=0,
                allocation_info=place,
                shape_dynamism=schema.TensorShapeDynamism.STATIC,
            )
            plan.values.append(schema.EValue(val=value))
            made.append(len(plan.values) - 1)
        plan.non_const_buffer_sizes[1] = end
        return made

    def _named_constants(self) -> dict[str, bytes]:
        named = self._file.named_data
        if named is None:
            return {}
        return {key: bytes(named.buffers[entry.buffer_index]) for key, entry in named.pte_data.items()}

    def _graph(self, index: int) -> XnnGraph:
        delegate = self.plan.delegates[index]
        if delegate.id != "XnnpackBackend":
            raise RuntimeLoadError(f"The program has a delegate {delegate.id!r}; only XNNPACK's can be cut.")
        data = bytes(self._file.program.backend_delegate_data[delegate.processed.index].data)
        return XnnGraph(_document(data), self.constants)


def tensor_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """The tensor of an `xvalue`, quantized or not."""
    union = value["xvalue_union"]
    found: dict[str, Any] = union.get("tensor_value", union)
    return found


def _makes(field: str) -> bool:
    return field.startswith("output") and field.endswith("_id")


def _document(data: bytes) -> dict[str, Any]:
    serializer = require("executorch.backends.xnnpack.serialization.xnnpack_graph_serialize", PURPOSE)
    flatbuffer = require("executorch.exir._serialize._flatbuffer", PURPOSE)
    header = serializer.XNNHeader.from_bytes(data[: serializer.XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(serializer._get_schema_bytes())
        (folder / "graph.bin").write_bytes(data[start : start + header.flatbuffer_size])
        flatbuffer._flatc_decompile(
            str(folder), str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--defaults-json", "--raw-binary"]
        )
        # flatc writes infinities bare, which is no JSON, and reads them in quotes.
        text = NOT_FINITE.sub(r'\1"\2"', (folder / "graph.json").read_text("utf-8"))
        document: dict[str, Any] = json.loads(text)
    return document


def _binary(document: Mapping[str, Any]) -> bytes:
    """A delegate's bytes; constants are named data of the program, so that none follow the graph."""
    serializer = require("executorch.backends.xnnpack.serialization.xnnpack_graph_serialize", PURPOSE)
    flatbuffer = require("executorch.exir._serialize._flatbuffer", PURPOSE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(serializer._get_schema_bytes())
        (folder / "graph.json").write_text(json.dumps(document), "utf-8")
        flatbuffer._flatc_compile(str(folder), str(folder / "schema.fbs"), str(folder / "graph.json"))
        payload = (folder / "graph.bin").read_bytes()
    length = serializer._aligned_size(serializer.XNNHeader.EXPECTED_LENGTH, serializer.CONSTANT_TENSOR_ALIGNMENT)
    padded = serializer._aligned_size(len(payload), serializer.CONSTANT_TENSOR_ALIGNMENT)
    header = serializer.XNNHeader(
        flatbuffer_offset=length,
        flatbuffer_size=len(payload),
        constant_data_offset=length + padded,
        constant_data_size=0,
    )
    return b"".join([serializer._pad_to(header.to_bytes(), length), serializer._pad_to(payload, padded)])
