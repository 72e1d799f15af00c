"""Capture: a module that keeps state becomes a functional graph for one step with named ports.

State is either in registered buffers, found because the exported graph writes them, or already passed and
returned as tensors, named by `state_pairs`. Nothing here knows a model family. See docs/decisions/002-capture.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvtool.converters import capture_checks
from mvtool.converters.calling import CallPlan, plan_call
from mvtool.converters.export import export_functional
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lift import find_ends
from mvtool.converters.naming import identifier
from mvtool.converters.proof import prove
from mvtool.converters.rollout import Feedback, Leaf, check_repeatable, roll, warm_up
from mvtool.converters.snapshot import Snapshot
from mvtool.converters.wiring import Wiring, wire
from mvtool.errors import CaptureError
from mvtool.program import ModelInfo, StreamProgram
from mvtool.streaming.state import reset, stream_state


def capture(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    info: ModelInfo,
    *,
    state_pairs: Sequence[tuple[str, str]] = (),
    initial: Mapping[str, np.ndarray[Any, Any] | float] | None = None,
    constants: Mapping[str, object] | None = None,
    output_names: Sequence[str] = (),
) -> StreamProgram:
    """Turn `module` into a stream program and prove it on a rollout.

    The module is run in eval mode and left exactly as it was: buffers, attributes and training flags.
    The buffers' values at this moment become the initial state, except that states declared with
    `mvtool.streaming` start at their declared value.

    Args:
        module: Any module.
        inputs: One spec per tensor that `forward` takes, states of `state_pairs` included.
        info: Facts that are not in the graph.
        state_pairs: `(input, output)`: the output becomes the input of the next step. An input is named as in
            its spec; an output by its key or field, or as `output1` by its position.
        initial: Initial value of paired states by input name; 0 where nothing is given.
        constants: Arguments of `forward` that are not tensors.
        output_names: Names of the outputs that are not state, in place of the derived ones.

    Returns:
        A program whose graph takes `(inputs..., states...)` in the module's own shapes. The first entry of
        `rewrites` is named `capture` and holds the difference from the eager module and remarks.

    Raises:
        CaptureError: The module cannot be captured; the message names the place.
    """
    capture_checks.check_module(module)
    keep = Snapshot(module)
    try:
        _prepare(module)
        plan = plan_call(module, inputs, constants or {})
        paired = [before for before, _ in state_pairs]
        capture_checks.check_inputs(plan, paired)
        starts = _starts(plan, paired, initial or {})
        first, settled = warm_up(module, plan, starts)
        pairs = _resolve(plan, state_pairs, first.outputs, starts)
        warm = Snapshot(module)
        rollout = roll(module, plan, pairs, settled)
        warm.restore()
        capture_checks.check_aliases(module, rollout.changed)
        exported = export_functional(module, plan, first.inputs)
        check_repeatable(module, first, rollout.steps[0], settled)
        ends = find_ends(exported)
        reached = [*(loop.source for loop in ends.buffers), *ends.written, *ends.unchanged]
        capture_checks.check_reached(module, rollout.changed, reached)
        wiring = Wiring(plan, pairs, rollout, ends, stream_state(module), tuple(output_names))
        wired = wire(exported, wiring, _with_frames(info, inputs, paired))
        return prove(wired, rollout)
    finally:
        keep.restore()


def _with_frames(info: ModelInfo, inputs: Sequence[InputSpec], states: Sequence[str]) -> ModelInfo:
    """A clip of T frames per call says so itself, where nothing else was said."""
    clips = [spec.shape[2] for spec in inputs if spec.layout == "NCTHW" and spec.name not in states]
    return replace(info, frames_per_step=clips[0]) if info.frames_per_step == 1 and clips else info


def _prepare(module: nn.Module) -> None:
    # The module of a loaded .pt2 refuses eval(); its mode was fixed when it was exported.
    with suppress(NotImplementedError):
        module.eval()
    reset(module)


def _starts(
    plan: CallPlan, names: Sequence[str], initial: Mapping[str, np.ndarray[Any, Any] | float]
) -> dict[int, Tensor]:
    """Initial value of every paired state by position of its input spec."""
    starts: dict[int, Tensor] = {}
    for name in names:
        if name not in plan.paths:
            raise CaptureError(
                f"The state input {name!r} is not an input; the inputs are: {', '.join(plan.paths)}. "
                f"Give its shape too, for example --input {name}=1x32."
            )
        position = plan.paths.index(name)
        if position in starts:
            raise CaptureError(f"The input {name!r} is paired with two outputs; a state has one next value.")
        spec = plan.specs[position]
        value = torch.as_tensor(np.asarray(initial.get(name, 0)), dtype=getattr(torch, spec.dtype))
        if value.ndim and tuple(value.shape) != spec.shape:
            raise CaptureError(
                f"The initial value of {name!r} has shape {list(value.shape)}, expected {list(spec.shape)}."
            )
        starts[position] = value.expand(spec.shape).clone()
    for name in initial:
        if name not in names:
            raise CaptureError(f"An initial value is given for {name!r}, which is not paired with an output.")
    return starts


def _resolve(
    plan: CallPlan, pairs: Sequence[tuple[str, str]], leaves: Sequence[Leaf], starts: Mapping[int, Tensor]
) -> tuple[Feedback, ...]:
    """Find the output leaf of every pair and check that it fits the input."""
    found: list[Feedback] = []
    for before, after in pairs:
        position, index = plan.paths.index(before), _leaf(after, leaves)
        value, start = leaves[index].value, starts[position]
        if not isinstance(value, Tensor) or value.shape != start.shape or value.dtype != start.dtype:
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise CaptureError(
                f"The state {before}={after} enters as {start.dtype} {list(start.shape)} and leaves as {got}; "
                "both must have one shape and type."
            )
        if any(index == feedback.output for feedback in found):
            raise CaptureError(f"The output {after!r} is paired with two inputs; name each output once.")
        found.append(Feedback(position, index, start))
    return tuple(found)


def _leaf(name: str, leaves: Sequence[Leaf]) -> int:
    names = [leaf.name for leaf in leaves]
    if identifier(name) in names:
        return names.index(identifier(name))
    number = re.fullmatch(r"(?:output_?)?(\d+)", name)
    if number and int(number[1]) < len(leaves):
        return int(number[1])
    raise CaptureError(f"The state output {name!r} is not an output; the outputs are: {', '.join(names)}.")
