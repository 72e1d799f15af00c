"""True ranges of every tensor inside a graph, observed while the stream rolls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mvtool.errors import ConversionError
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range

if TYPE_CHECKING:
    import torch


def observe(program: StreamProgram, graph: torch.fx.GraphModule, calibration: CalibrationSet) -> dict[str, Range]:
    """Minimum and maximum of every float tensor of `graph`, by node name.

    Args:
        program: A lowered program; `graph` is its `exported.module()`, or one with the same inputs and outputs.
        graph: The graph to observe.
        calibration: Clips; each starts from the initial state.

    Raises:
        ConversionError: A tensor is not finite.
    """
    import torch

    extremes: dict[str, Any] = {}

    class Observer(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
                found = torch.stack(torch.aminmax(value.detach()))
                if n.name in extremes:
                    torch.minimum(extremes[n.name][0], found[0], out=extremes[n.name][0])
                    torch.maximum(extremes[n.name][1], found[1], out=extremes[n.name][1])
                else:
                    extremes[n.name] = found
            return value

    observer = Observer(graph)
    skipped = len(program.outputs)
    with torch.no_grad():
        for clip in calibration.clips:
            states = [torch.from_numpy(array) for array in program.initial_ports()]
            for step in clip:
                frames = [torch.from_numpy(port.encode(a)) for port, a in zip(program.inputs, step, strict=True)]
                states = program.following(states, list(observer.run(*frames, *states))[skipped:])
    return {name: _finite(name, float(low), float(high)) for name, (low, high) in extremes.items()}


def _finite(name: str, low: float, high: float) -> Range:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConversionError(
            f"Tensor {name!r} is not finite during calibration (range {low} .. {high}). "
            "Check the weights, and that the calibration frames are preprocessed as in training."
        )
    return Range(low, high)
