"""The ExecuTorch emitter: a lowered stream program becomes a `.pte` for XNNPACK.

    fp32  float32 throughout
    int8  static int8 weights and activations from a PT2E program; frames and state buffers enter and leave
          as int8; the vector path has float activations and int8 weights
    int8-dynamic  float32 ports; convolutions and dense layers round their activations at run time, depthwise
          convolutions are float32
    int8-weights  float32 throughout; dense layers and 1x1 convolutions read int8 weights

A program with slots (`mvtool.ports.RingBinding`) reads its inputs where the caller has them, so that slots are handed on by
their pointers; others have memory of their own for their inputs.

A `.pte` knows positions only: port `i` of the manifest is argument or result `i` of `forward`. The manifest
itself is what the method `mvtool_ports` returns. The written file is executed before it takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mvtool.converters.executorch_graph import biases_apart, spelled, with_int8_ports
from mvtool.converters.executorch_lowering import lower_to_executorch
from mvtool.converters.executorch_passes import PURPOSE
from mvtool.converters.progress import part
from mvtool.errors import ConversionError, RuntimeLoadError, UsageError
from mvtool.extras import require
from mvtool.files import atomic_path
from mvtool.ports import AnyArray, PortManifest, Precision, Quantization, Runtime, TensorPort
from mvtool.program import StateSpec, StreamProgram
from mvtool.quantization.calibration import graph_step
from mvtool.quantization.pt2e import QuantizedProgram
from mvtool.runtimes.borders import Borders
from mvtool.runtimes.executorch import PORTS_METHOD, ExecuTorchExecutable

if TYPE_CHECKING:
    from torch.fx import GraphModule

EXTENSION = ".pte"
PortT = TypeVar("PortT", bound=TensorPort)
Report = Callable[[str], None]

CHECKED_STEPS = 3
CHECKED_SEED = 7
LARGEST_DIFFERENCE = {
    Precision.FP32: 1e-4,
    Precision.INT8: 0.1,
    Precision.INT8_DYNAMIC: 0.1,
    Precision.INT8_WEIGHTS: 1e-4,
}
"""Of a float tensor's largest value: float32 sums in another order, or the steps of int8 operators before it."""
LARGEST_MEAN_STEPS = 1.0
"""Mean of an int8 port, in steps of its scale. Float operators between int8 ones may fall on either side of a rounding
tie, which deep random networks amplify; a wrong scale or a swapped port is tens of steps off. Verify judges more sharply."""


@dataclass(frozen=True)
class Emission:
    """A written `.pte`.

    Attributes:
        manifest: Its port manifest, the same as in the file.
        delegates: Number of delegate calls.
        outside: Operators that run on portable kernels, by name, in graph order.
    """

    manifest: PortManifest
    delegates: int
    outside: tuple[str, ...]


def prepare(program: StreamProgram) -> StreamProgram:
    """Spell a lowered program for this target; do this before quantizing it."""
    return spelled(program)


def emit(
    program: StreamProgram | QuantizedProgram,
    path: Path,
    *,
    precision: Precision = Precision.INT8,
    report: Report = lambda message: None,
) -> Emission:
    """Write a program as a `.pte`.

    Args:
        program: From `prepare`, fp32; or its quantized form.
        path: File to write; an existing one is replaced when the new one is complete and was executed.
        precision: Of a quantized program.
        report: Told of operators outside the delegate and of the check's differences.

    Raises:
        UsageError: `path` does not end in `.pte`.
        ConversionError: The exporter failed, the runtime refuses the file, or it computes something else.
        MissingExtraError: executorch is not installed.
    """
    if path.suffix != EXTENSION:
        raise UsageError(f"An ExecuTorch program is written to a path ending in {EXTENSION}, got {path.name!r}.")
    require("executorch", PURPOSE)
    # A network of vectors alone has int8 weights and no port on an int8 grid.
    if isinstance(program, QuantizedProgram):
        ported, program = int8_ported(program), program.program
    else:
        ported, precision = program, Precision.FP32
    manifest = ported.manifest(Runtime.EXECUTORCH, precision)
    data, outside = _lower(ported, manifest)
    with atomic_path(path) as partial:
        partial.write_bytes(data)
        with part("check"):
            check_file(partial, program, ported, precision, report)
    if outside:
        report(f"{len(outside)} operators run outside XNNPACK: {', '.join(sorted(set(outside)))}")
    return Emission(manifest, _delegates(path), tuple(outside))


def int8_ported(quantized: QuantizedProgram) -> StreamProgram:
    """The program with int8 frames and states where they lie on an int8 grid; other ports stay float."""
    program = quantized.program
    inputs = tuple(_stored(port, quantized.ports.get(port.name)) for port in program.inputs)
    states = tuple(_stored_state(state, quantized) for state in program.states)
    changed = program.replace(inputs=inputs, states=states)
    positions = {i for i, port in enumerate(changed.input_ports) if port.quantization}
    results = {i for i, port in enumerate(changed.output_ports) if port.quantization}
    return changed.replace(exported=biases_apart(with_int8_ports(program.exported, positions, results)))


def check_file(path: Path, program: StreamProgram, ported: StreamProgram, precision: Precision, report: Report) -> None:
    """Execute the written file for a few steps beside the program it was made from.

    Raises:
        ConversionError: The runtime refuses the file, or a port computes something else.
    """
    try:
        executable = ExecuTorchExecutable(path, threads=1)
        worst = max(_differences(executable, program, ported, precision), key=lambda found: found[1])
    except RuntimeLoadError as error:
        raise ConversionError(
            f"ExecuTorch refuses the program of {program.info.name!r} that was just written: {error}"
        ) from error
    report(f"executed: largest difference {worst[1]:.2g} of its bound, at {worst[0]}")
    if not worst[1] <= 1.0:
        raise ConversionError(
            f"The written program does not compute {program.info.name!r}: port {worst[0]!r} is off by {worst[1]:.3g} "
            "times its bound. Please report this model."
        )


def _differences(
    executable: ExecuTorchExecutable, program: StreamProgram, ported: StreamProgram, precision: Precision
) -> Sequence[tuple[str, float]]:
    """Port and difference, in units of the allowed one, over a few steps of random inputs."""
    import torch

    from mvtool.verification.integers import integer_arithmetic, round_at_run_time

    def edit(module: GraphModule) -> None:
        round_at_run_time(module, Borders())
        if precision is not Precision.INT8_DYNAMIC:
            integer_arithmetic(module)

    generator, bound = np.random.default_rng(CHECKED_SEED), LARGEST_DIFFERENCE[precision]
    reference = graph_step(program, edit)
    states, found = ported.initial_ports(), []
    with torch.no_grad():
        for _ in range(CHECKED_STEPS):
            frames = [port.encode(_random(generator, port)) for port in ported.inputs]
            given = executable.run([*frames, *states])
            expected = reference([_real(p, a) for p, a in zip(ported.input_ports, [*frames, *states], strict=True)])
            for port, one, other in zip(ported.output_ports, given, expected, strict=True):
                found.append((port.name, _excess(port, one, other, bound)))
            states = ported.following(states, given[len(ported.outputs) :])
    return found


def _excess(port: TensorPort, given: AnyArray, expected: AnyArray, bound: float) -> float:
    difference = np.abs(_real(port, given).astype(np.float64) - expected.astype(np.float64))
    if not np.isfinite(difference).all():
        return float("inf")
    if port.quantization is not None:
        return float(difference.mean()) / (LARGEST_MEAN_STEPS * port.quantization.scale)
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    return float(difference.max(initial=0.0)) / largest / bound


def _random(generator: np.random.Generator, port: TensorPort) -> AnyArray:
    if port.dtype in ("float32", "float16", "int8", "uint8"):
        return generator.random(port.logical_shape, dtype=np.float32)
    return np.zeros(port.logical_shape, port.dtype)


def _real(port: TensorPort, stored: AnyArray) -> AnyArray:
    """The real values at a port, in the port's shape."""
    if port.quantization is None:
        return np.asarray(stored)
    steps = stored.astype(np.float32) - np.float32(port.quantization.zero_point)
    return steps * np.float32(port.quantization.scale)


def _stored(port: PortT, quantization: Quantization | None) -> PortT:
    if quantization is None:
        return port
    return port.model_copy(update={"dtype": "int8", "quantization": quantization})


def _stored_state(state: StateSpec, quantized: QuantizedProgram) -> StateSpec:
    grid = quantized.ports.get(state.inputs[0].name)
    return state.with_ports(lambda port: _stored(port, grid))


def _lower(program: StreamProgram, manifest: PortManifest) -> tuple[bytes, list[str]]:
    try:
        moves = all(state.slots is None for state in program.states)
        return lower_to_executorch(program.exported, {PORTS_METHOD: manifest.to_json()}, plan_inputs=moves)
    except (RuntimeError, ValueError, AssertionError, KeyError, AttributeError, TypeError) as error:
        raise ConversionError(
            f"ExecuTorch cannot export {program.info.name!r}: {type(error).__name__}: {error}. "
            "Please report this model."
        ) from error


def _delegates(path: Path) -> int:
    from mvtool.operators import count

    return sum(number for name, number in count(path, Runtime.EXECUTORCH).items() if "xnnpack" in name.lower())
