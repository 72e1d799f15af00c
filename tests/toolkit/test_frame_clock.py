from __future__ import annotations

import numpy as np
import pytest

from mvtool.frame_clock import MAX_GAP_S, Frame, FrameClock, sample

IMAGE = np.zeros((1, 1, 3), np.uint8)


def at(*times_s: float) -> list[Frame]:
    return [Frame(i, t, IMAGE) for i, t in enumerate(times_s)]


def sampled(times_s: list[float], rate: float | None) -> list[int]:
    return [f.index for f in sample(iter(at(*times_s)), rate)]


def test_time_starts_at_zero() -> None:
    clock = FrameClock(25)
    assert [clock.tick(t) for t in (7.0, 7.5, 9.0)] == [0.0, 0.5, 2.0]


def test_missing_stamps_go_on_at_the_nominal_rate() -> None:
    clock = FrameClock(10)
    assert [clock.tick(t) for t in (None, None, None)] == pytest.approx([0.0, 0.1, 0.2])


def test_packed_b_frames_use_the_decoding_stamps() -> None:
    """Stamps as FFmpeg gives them for an AVI with packed B-frames: presentation order is wrong."""
    clock = FrameClock(25)
    pts = [1, 2, 4, 3, 5, 7, 6, 8, 10, 9]
    dts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    ticks = [clock.tick(p / 25, d / 25) * 25 for p, d in zip(pts, dts, strict=True)]
    assert ticks == pytest.approx([0, 1, 3, 3, 4, 5, 6, 7, 8, 9])


def test_a_restart_of_the_count_goes_on() -> None:
    clock = FrameClock(10)
    assert [clock.tick(t) for t in (50.0, 51.0, 0.0, 1.0)] == pytest.approx([0.0, 1.0, 1.1, 2.1])


def test_an_absurd_jump_is_one_frame() -> None:
    clock = FrameClock(10)
    stamps = (0.0, 1.0, 2.0 + MAX_GAP_S + 1, 3.0 + MAX_GAP_S + 1)
    assert [clock.tick(t) for t in stamps] == pytest.approx([0.0, 1.0, 1.1, 2.1])


def test_a_small_step_back_stands_still() -> None:
    clock = FrameClock(10)
    assert [clock.tick(t) for t in (0.0, 0.5, 0.4, 0.6)] == pytest.approx([0.0, 0.5, 0.5, 0.6])


def test_no_rate_passes_everything() -> None:
    assert sampled([0.0, 0.1, 0.2], None) == [0, 1, 2]


def test_nearest_frame() -> None:
    # Steps at 0, 1, 2: the frames at 0.9 and 2.1 are nearer than those at 1.2 and 1.7.
    assert sampled([0.0, 0.9, 1.2, 1.7, 2.1], 1.0) == [0, 1, 4]


def test_the_last_frame_is_shown_as_long_as_the_one_before() -> None:
    # Half way to 1.0 s belongs to the first frame; the last one lasts until 2.0 s, and step 2.0 s does not come.
    assert sampled([0.0, 1.0], 4.0) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert sampled([0.0, 0.1, 0.2, 0.30000001], 10.0) == [0, 1, 2, 3]


def test_one_frame_gives_one_step() -> None:
    assert sampled([0.0], 5.0) == [0]


def test_nothing_gives_nothing() -> None:
    assert sampled([], 5.0) == []
