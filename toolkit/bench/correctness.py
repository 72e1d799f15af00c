"""The gate before any latency is believed: what the device computes is what the host's runtime computes.

The runner dumps the outputs of its first calls from reset and the states after them; the host steps the same file
through `mvtool.open` with the same frames. A wrong port, a state that is not fed back or a broken kernel shows here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvtool.bench.plan import Plan
from mvtool.bench.record import Correctness, PortCheck
from mvtool.errors import RunnerError, VerificationError
from mvtool.ports import AnyArray, PortManifest, Precision, TensorPort
from mvtool.verification.bounds import ERROR_FLOOR

TOLERANCES = {
    Precision.FP32: 1e-4,
    Precision.FP16: 1e-2,
    Precision.INT8: 0.1,
    Precision.INT8_DYNAMIC: 0.1,
    Precision.INT8_WEIGHTS: 1e-4,
}
"""Largest error by precision. Kernels of other processors add in another order (float32) and round the last step of an 8-bit
value the other way, which a stream carries on; a state that is lost or swapped gives errors near 1."""


@dataclass(frozen=True)
class Expected:
    """What the host's runtime computes.

    Attributes:
        engine: What computed it.
        outputs: By call, output name to logical array.
        states: State name to stored array after the last call.
    """

    engine: str
    outputs: tuple[dict[str, AnyArray], ...]
    states: dict[str, AnyArray]


def expect(path: Path, steps: Sequence[tuple[AnyArray, ...]]) -> Expected:
    """Step an artifact on the host from reset.

    Args:
        path: The artifact.
        steps: Logical inputs of each call.

    Raises:
        RuntimeLoadError: The host's runtime refuses the file.
        MissingExtraError: It is not installed.
    """
    from mvtool.runtimes import open_file

    session = open_file(path)
    session.reset()
    outputs = tuple(session.step(*step) for step in steps)
    return Expected(session.engine, outputs, session.state())


def check(plan: Plan, dump: bytes, expected: Expected, device: str) -> Correctness:
    """Hold a runner's dump against what was expected.

    Args:
        plan: The plan that the runner followed.
        dump: Its check file.
        expected: Of the same calls.
        device: For the error message.

    Raises:
        RunnerError: The dump has another length than the plan gives.
        VerificationError: An output or a state differs; no latency is recorded.
    """
    if len(dump) != plan.check_bytes:
        raise RunnerError(
            f"The outputs of {device} have {len(dump)} bytes, expected {plan.check_bytes} for {plan.check_steps} calls. "
            "Nothing was recorded. Run it again."
        )
    ports = plan.ports
    tolerance = TOLERANCES[ports.precision]
    got_outputs, got_states = _parse(ports, dump, plan.check_steps)
    checks = [
        PortCheck(port=port.name, error=_worst(got_outputs, expected, port), tolerance=tolerance)
        for port in ports.outputs
    ]
    for binding in ports.states:
        port = binding.output
        error = _error(port.decode(got_states[binding.state]), port.decode(expected.states[binding.state]))
        checks.append(PortCheck(port=port.name, error=error, tolerance=tolerance))
    _refuse(checks, plan, expected, device)
    return Correctness(steps=plan.check_steps, reference=expected.engine, ports=tuple(checks))


def _refuse(checks: list[PortCheck], plan: Plan, expected: Expected, device: str) -> None:
    failed = [check for check in checks if not check.error <= check.tolerance]
    if failed:
        worst = max(failed, key=lambda check: check.error)
        raise VerificationError(
            f"{plan.model} on {device} does not compute what {expected.engine} computes here from the same frames: "
            f"{len(failed)} of {len(checks)} outputs and states differ, most {worst.port!r} with an error of {worst.error:.3g}, "
            f"where {worst.tolerance:g} is allowed. No latency was recorded. Try another version of the runtime library; "
            "`mvtool verify` tells whether the file itself is right."
        )


def _parse(ports: PortManifest, dump: bytes, steps: int) -> tuple[list[dict[str, AnyArray]], dict[str, AnyArray]]:
    at = 0

    def take(port: TensorPort) -> AnyArray:
        nonlocal at
        array = np.frombuffer(dump, port.dtype, count=port.size_bytes // np.dtype(port.dtype).itemsize, offset=at)
        at += port.size_bytes
        return array

    outputs = [{port.name: port.decode(take(port)) for port in ports.outputs} for _ in range(steps)]
    return outputs, {binding.state: take(binding.output) for binding in ports.states}


def _worst(got: list[dict[str, AnyArray]], expected: Expected, port: TensorPort) -> float:
    pairs = zip(got, expected.outputs, strict=True)
    return max(_error(mine[port.name], theirs[port.name]) for mine, theirs in pairs)


def _error(got: AnyArray, expected: AnyArray) -> float:
    """max|difference| / max(max|expected|, 1e-3); infinite where a value is not a number."""
    reference = np.asarray(expected, np.float64)
    difference = float(np.max(np.abs(np.asarray(got, np.float64) - reference), initial=0.0))
    error = difference / max(float(np.max(np.abs(reference), initial=0.0)), ERROR_FLOOR)
    return error if np.isfinite(error) else float("inf")
