from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stream_nets import clips, stream_program

from mvtool.errors import ManifestError, UsageError
from mvtool.ports import StateForm
from mvtool.quantization.calibration import port_ranges, rolled
from mvtool.quantization.shared import save_shared
from mvtool.quantization.state_ranges import StateRange, StateRanges, plot, read


def test_the_record_holds_the_extremes_of_every_step(tmp_path: Path) -> None:
    program, calibration = stream_program(), clips(count=2, steps=5)
    save_shared(program, calibration, tmp_path / "shared", tmp_path / "reference" / "ranges.json")
    found = read(tmp_path / "reference" / "ranges.json")
    assert [state.state for state in found.states] == [state.logical.name for state in program.states]
    steps = list(rolled(program, calibration))
    for state, spec in zip(found.states, program.states, strict=True):
        assert len(state.low) == len(state.high) == 5
        for index in range(5):
            seen = [step.outputs[spec.output.name] for step in steps if step.index == index]
            assert state.low[index] == pytest.approx(min(a.min() for a in seen), rel=1e-6)
            assert state.high[index] == pytest.approx(max(a.max() for a in seen), rel=1e-6)
    # The ports' ranges, which the quantization uses, are those of the record and of the initial state together.
    ranges = port_ranges(program, calibration)
    for state, spec in zip(found.states, program.states, strict=True):
        start = np.asarray(spec.initial)
        ends = min(*state.low, start.min()), max(*state.high, start.max())
        assert ranges[spec.output.name] == pytest.approx(ends, rel=1e-6)


def state(high: list[float], form: StateForm = StateForm.FIFO) -> StateRange:
    return StateRange(state="s", form=form, low=(0.0,) * len(high), high=tuple(high))


def test_what_still_grows_has_not_settled() -> None:
    assert state([1.0, 2.0, 3.0, 3.01]).settled
    assert not state([1.0, 2.0, 3.0, 4.0]).settled
    assert state([5.0]).settled
    assert state([1.0, 2.0, 3.0, 4.0], StateForm.COUNTER).settled
    assert state([0.0, 0.0]).settled


def test_a_picture(tmp_path: Path) -> None:
    states = (state([1.0, 2.0]), state([1.0, 1.0], StateForm.MEAN), state([0.0, 0.0], StateForm.COUNTER))
    plot(StateRanges(model="m", origin="o", clips=1, states=states), tmp_path / "ranges.png")
    assert (tmp_path / "ranges.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="nothing to draw"):
        plot(StateRanges(model="m", origin="o", clips=1, states=states[2:]), tmp_path / "none.png")


def test_a_broken_record(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no readable record"):
        read(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text('{"schema": "mvtool.other/1"}')
    with pytest.raises(ManifestError, match="no readable record"):
        read(tmp_path / "broken.json")
