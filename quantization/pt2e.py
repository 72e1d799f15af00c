"""The PT2E program: one calibrated int8 graph that ExecuTorch and Core ML share, and its simulation.

PT2E (PyTorch 2 export quantization) writes int8 as float operators between `quantize` and `dequantize`
operators; runtimes fuse the three into int8 kernels. Executed by PyTorch the same graph simulates the
runtimes: every tensor passes through exactly the int8 grid that they use.

The graph's ports stay float. `PortQuantization` lists the ports whose values lie on an int8 grid; an
emitter may turn those into int8 ports.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from mvtool.converters.progress import part
from mvtool.errors import ConversionError, UsageError
from mvtool.extras import require
from mvtool.ports import AnyArray, Quantization, TensorPort
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range, graph_step, port_ranges
from mvtool.quantization.plan import (
    WEIGHTED,
    is_depthwise,
    make_plan,
    operator_of,
    plan_weights,
    port_nodes,
    result_nodes,
)
from mvtool.quantization.policy import ALL_STORED, Weights
from mvtool.quantization.pt2e_graph import apply_plan
from mvtool.quantization.pt2e_open import open_graph
from mvtool.quantization.ranges import observe

if TYPE_CHECKING:
    from torch.fx import GraphModule

PORTS_FILE = "quantization.json"
_PORTS = TypeAdapter(dict[str, Quantization])


@dataclass(frozen=True)
class QuantizedProgram:
    """A PT2E program.

    Attributes:
        program: The step graph with quantize and dequantize operators; float ports.
        ports: Quantization of every port whose values lie on an int8 grid, by port name; both ends
            of a state have the same.
    """

    program: StreamProgram
    ports: Mapping[str, Quantization] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse states whose two ends differ."""
        for state in self.program.states:
            before, *others = (self.ports.get(port.name) for port in (*state.inputs, *state.outputs))
            if after := [other for other in others if other != before]:
                raise ConversionError(
                    f"State {state.logical.name!r} enters with {before} and leaves with {after[0]}; both ends must share "
                    "one scale and zero point."
                )

    def float_weights(self) -> Counter[str]:
        """How many layers of each kind keep float weights."""
        layers = [node for node in self.program.exported.graph.nodes if operator_of(node) in WEIGHTED]
        return Counter(
            f"{'depthwise ' * is_depthwise(node)}{operator_of(node)}"
            for node in layers
            if node.args[1].op == "placeholder"
        )

    def save(self, folder: Path) -> None:
        """Write the program and its port quantization into `folder`."""
        from mvtool.converters.program_io import save_program

        save_program(self.program, folder)
        (folder / PORTS_FILE).write_text(
            json.dumps({k: v.model_dump() for k, v in sorted(self.ports.items())}), "utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> QuantizedProgram:
        """Read what `save` wrote.

        Raises:
            ConversionError: A file is missing or malformed.
        """
        from mvtool.converters.program_io import load_program

        register_operators()
        try:
            ports = _PORTS.validate_json((folder / PORTS_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise ConversionError(f"{folder} does not hold a quantized program: {error}. Convert again.") from error
        return cls(load_program(folder), ports)


class Simulation:
    """Steps a PT2E program in PyTorch on values a runtime stored.

    Values at this interface are real numbers in the ports' shapes: what a runtime stored, decoded.
    """

    def __init__(self, quantized: QuantizedProgram) -> None:
        """Prepare the graph once; stepping does not keep state."""
        register_operators()
        self._quantized = quantized
        self._step = graph_step(quantized.program)

    def step(self, inputs: Sequence[AnyArray]) -> dict[str, AnyArray]:
        """Outputs and next states by port name.

        Args:
            inputs: Model inputs, then states, in port order; float32, shapes of the ports.
        """
        import torch

        with torch.no_grad():
            found = self._step(list(inputs))
        return {port.name: array for port, array in zip(self._quantized.program.output_ports, found, strict=True)}


def quantize(
    program: StreamProgram,
    calibration: CalibrationSet,
    ranges: Mapping[str, Range] | None = None,
    exact: frozenset[str] = frozenset(),
    vector_path: Weights = ALL_STORED,
) -> QuantizedProgram:
    """Calibrate a lowered program and write its int8 form.

    Args:
        program: Lowered, fp32.
        calibration: Clips; the states are rolled through the float model.
        ranges: Shared port ranges; computed here if None.
        exact: Names of weights whose layers stay float, see `mvtool.quantization.layers`.
        vector_path: Form of the weights where activations are float.

    Raises:
        ConversionError: A tensor is not finite, or a scale cannot be represented by the kernels.
    """
    register_operators()
    shared = port_ranges(program, calibration) if ranges is None else ranges
    module = open_graph(program)
    with part("calibration"):
        found = observe(program, module, calibration)
    found.update({name: shared[port.name] for port, name in _port_names(program, module) if port.name in shared})
    plan = make_plan(program, module, found, exact, vector_path)
    ports = {port.name: plan.stored[name] for port, name in _port_names(program, module) if name in plan.stored}
    exported = apply_plan(program, module, plan, found)
    return QuantizedProgram(program.replace(exported=exported), ports)


def quantize_weights(program: StreamProgram, weights: Weights) -> QuantizedProgram:
    """Round the weights of a lowered program; activations, ports and states stay float.

    Args:
        program: Lowered, fp32.
        weights: Form of each layer's weights.

    Raises:
        UsageError: The program has no layer whose weights can be int8.
    """
    register_operators()
    module = open_graph(program, weights.pointwise_as_dense)
    plan = plan_weights(module, weights)
    if not plan.weight_only:
        raise no_weights(program)
    return QuantizedProgram(program.replace(exported=apply_plan(program, module, plan, {})))


def no_weights(program: StreamProgram) -> UsageError:
    """The error for a model that a recipe of weights alone would not change."""
    return UsageError(
        f"{program.info.name} has no weights that this runtime can hold in int8; expected a dense layer or a convolution "
        "(docs/quantization.md says which). Convert to fp32, or to int8 with calibration."
    )


def rounded_weights(program: StreamProgram) -> StreamProgram:
    """The lowered `program` in float arithmetic on int8 weights, the reference of files that hold no others."""
    return quantize_weights(program, ALL_STORED).program


def register_operators() -> None:
    """Make `torch.ops.quantized_decomposed` known, which torch does on import of this module only."""
    require("torch.ao.quantization.fx._decomposed", "to quantize and to simulate int8 graphs")


def _port_names(program: StreamProgram, module: GraphModule) -> list[tuple[TensorPort, str]]:
    """Ports and their nodes; the inputs come last, so that one that is a result too has its own range, a camera's exact one."""
    inputs = zip(program.input_ports, port_nodes(module.graph), strict=True)
    outputs = zip(program.output_ports, result_nodes(module.graph), strict=True)
    return [(port, node.name) for port, node in (*outputs, *inputs)]
