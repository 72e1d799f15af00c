"""Proof by execution that every input and output is the tensor that its manifest names.

The states are set to values that differ from each other (states of a rolled stream plus noise), one step
is executed, and every result must be nearer to its own reference than to that of any other tensor of
its shape. For a `.pte`, which keeps no names, this is what proves the positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from mvtool.ports import AnyArray, PortManifest, StateForm
from mvtool.verification.judge import Deviation, worst_of_each
from mvtool.verification.replay import Replay, logical_states
from mvtool.verification.report import Check, CheckResult, failed, passed
from mvtool.verification.store import Frame

PROBE_FRAMES = 6
"""Steps rolled before the noise is added; enough for features of several frames."""
_NOISE = 0.1
_TRIED_SWAPS = 60


def perturbed(manifest: PortManifest, states: Mapping[str, AnyArray], seed: int = 1) -> dict[str, AnyArray]:
    """Rolled logical states with independent noise, so that no two are alike.

    Real-valued histories, means and opaque states move by a tenth of their standard deviation; counters
    advance by different whole numbers; phases and integers, which may index a table, stay.
    """
    generator = np.random.default_rng(seed)
    changed = {}
    for number, binding in enumerate(manifest.states):
        value = states[binding.state]
        if binding.form is StateForm.COUNTER:
            value = value + np.asarray(number, value.dtype)
        elif binding.form is not StateForm.PHASE and value.dtype.kind == "f":
            noise = generator.standard_normal(value.shape).astype(value.dtype)
            value = value + noise * np.asarray(_NOISE * (float(np.std(value)) or 1.0), value.dtype)
        changed[binding.state] = value
    return changed


def check_order(replay: Replay, before: Frame, after: Frame) -> CheckResult:
    """Execute the probe step.

    Args:
        replay: Its session's state is overwritten.
        before: The states to set.
        after: The inputs of the step and, for float artifacts, what the reference made of them.
    """
    manifest = replay.session.manifest
    stored = {b.state: b.input.encode(before.states[b.state]) for b in manifest.states}
    found = _probe(replay, stored, after.inputs)
    expected = replay.nearest_simulation(stored, found) if manifest.precision.quantized else after
    bad = [deviation for deviation in replay.deviations(stored, found, expected, 1) if not deviation.holds]
    if bad:
        swap = _diagnosis(replay, stored, expected, found, [d.tensor for d in bad])
        worst = max(bad, key=lambda deviation: deviation.severity)
        own = f"{worst.tensor!r} is not what its manifest says: {worst.value:.3g} {worst.unit}"
        text = swap or own + replay.search.reason() + replay.spread.told()
        return failed(Check.ORDER, text, worst=worst.value, limit=worst.limit, tensor=worst.tensor)
    return _verdict(manifest, found, expected)


def _verdict(manifest: PortManifest, found: Frame, expected: Frame) -> CheckResult:
    confused, equal = [], 0
    for first, second in _alike(manifest):
        actual, own, other = (_tensor(found, first), _tensor(expected, first), _tensor(expected, second))
        if np.array_equal(own, other):
            equal += 1
        elif not np.linalg.norm(actual - own) < np.linalg.norm(actual - other):
            confused.append(f"{first!r} and {second!r}")
    if confused:
        return failed(Check.ORDER, f"execution does not tell apart {'; '.join(confused[:4])}")
    text = f"{len(manifest.input_ports)} inputs and {len(manifest.output_ports)} outputs hold what the manifest says"
    note = f"; {equal} pairs hold equal values, so that their order has no effect" if equal else ""
    return passed(Check.ORDER, text + note)


def _probe(replay: Replay, stored: Mapping[str, AnyArray], inputs: Sequence[AnyArray]) -> Frame:
    replay.session.set_state(dict(stored))
    outputs = replay.session.step(*inputs)
    return Frame(tuple(inputs), outputs, logical_states(replay.session.manifest, replay.session.state()))


def _deviations(replay: Replay, found: Frame, expected: Frame) -> list[Deviation]:
    return worst_of_each(replay.judge.measures(found, expected, 1))


def _tensor(frame: Frame, name: str) -> AnyArray:
    return frame.states[name] if name in frame.states else frame.outputs[name]


def _alike(manifest: PortManifest) -> Iterator[tuple[str, str]]:
    """Ordered pairs of states, and of outputs, that a wrong order could exchange unnoticed."""
    states = [(b.state, b.output) for b in manifest.states]
    outputs = [(port.name, port) for port in manifest.outputs]
    for group in (states, outputs):
        for (first, one), (second, two) in combinations(group, 2):
            if (one.shape, one.dtype, one.logical_shape) == (two.shape, two.dtype, two.logical_shape):
                yield first, second
                yield second, first


def _diagnosis(
    replay: Replay, stored: dict[str, AnyArray], expected: Frame, found: Frame, bad: Sequence[str]
) -> str | None:
    """Say which pair was swapped, if exchanging one explains what was found."""
    states = {binding.state for binding in replay.session.manifest.states}
    pairs = [(a, b) for a, b in _alike(replay.session.manifest) if a < b and a in states][:_TRIED_SWAPS]
    for first, second in pairs:
        if {first, second} <= set(bad) and _outputs_swapped(replay, expected, found, first, second):
            return _swap_text("results", first, second)
    for first, second in pairs:
        exchanged = {**stored, first: stored[second], second: stored[first]}
        again = _probe(replay, exchanged, found.inputs)
        for names in (None, (first, second)):
            seen = again if names is None else _exchanged(again, first, second)
            if all(deviation.holds for deviation in _deviations(replay, seen, expected)):
                return _swap_text("inputs" if names is None else "inputs and results", first, second)
    return None


def _outputs_swapped(replay: Replay, expected: Frame, found: Frame, first: str, second: str) -> bool:
    deviations = _deviations(replay, _exchanged(found, first, second), expected)
    return all(deviation.holds for deviation in deviations if deviation.tensor in (first, second))


def _exchanged(frame: Frame, first: str, second: str) -> Frame:
    states = {**frame.states, first: frame.states[second], second: frame.states[first]}
    return Frame(frame.inputs, frame.outputs, states)


def _swap_text(what: str, first: str, second: str) -> str:
    return f"swapped state pair: the {what} of states {first!r} and {second!r} are exchanged"
