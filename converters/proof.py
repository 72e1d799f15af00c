"""The captured program must compute what the eager module computed, step after step."""

from __future__ import annotations

import torch
from torch import Tensor

from mvtool.converters.rollout import TOLERANCE, Rollout, Step, difference
from mvtool.converters.wiring import Origin, Wired
from mvtool.errors import CaptureError
from mvtool.program import RewriteReport, StreamProgram

REPORT_NAME = "capture"


def prove(wired: Wired, rollout: Rollout) -> StreamProgram:
    """Replay the rollout with the program, its own states fed back, and compare every output and state.

    Returns:
        The program with a first report: the largest difference relative to the largest value of its
        tensor, and remarks.

    Raises:
        CaptureError: A tensor differs by more than `TOLERANCE`.
    """
    program = wired.program
    run = program.exported.module()
    states = [torch.from_numpy(state.initial.copy()) for state in program.states]
    worst = 0.0
    for number, step in enumerate(rollout.steps):
        inputs = [_value(source, step) for source in wired.inputs]
        with torch.no_grad():
            results = list(run(*inputs, *states))
        for port, source, got in zip(program.output_ports, wired.outputs, results, strict=True):
            distance = difference(got, _value(source, step))
            if not distance <= TOLERANCE:
                raise CaptureError(_message(port.name, number, distance, rollout))
            worst = max(worst, distance)
        states = results[len(program.outputs) :]
    details = tuple(f"{s.logical.source} -> {s.input.name}, {s.output.name} ({s.form.value})" for s in program.states)
    report = RewriteReport(REPORT_NAME, len(program.states), worst, details, wired.remarks)
    return program.replace(rewrites=(report,))


def _value(source: Origin, step: Step) -> Tensor:
    if source.input is not None:
        return step.inputs[source.input]
    if source.leaf is not None:
        value = step.outputs[source.leaf].value
        assert isinstance(value, Tensor)
        return value
    assert source.buffer is not None
    return step.buffers[source.buffer]


def _message(name: str, number: int, distance: float, rollout: Rollout) -> str:
    suspects = ", ".join(change.path for change in rollout.settled)
    hint = f" Attributes that the first call set: {suspects}." if suspects else ""
    return (
        f"The captured graph differs from the model in {name!r} at step {number + 1} by {distance:.3g} of its largest value, "
        f"allowed is {TOLERANCE:g}. The model depends on something that a graph cannot see: Python state, the number of "
        f"calls, or the values of a tensor.{hint} Keep whatever changes in registered buffers."
    )
