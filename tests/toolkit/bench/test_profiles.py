"""Profiles keep MLPerf's minimum, and contradictions are refused."""

from __future__ import annotations

import pytest

from mvtool.bench.profiles import Request, mask, max_seconds
from mvtool.errors import UsageError


@pytest.mark.parametrize("launches", [None, 1, 4, 7, 20])
def test_the_default_measures_1024_invokes_and_60_seconds_in_all(launches: int | None) -> None:
    options = Request(launches=launches).options("clip.mp4", 32)
    assert options.profile == "default"
    assert options.launches * options.min_invokes >= 1024
    assert options.launches * options.min_seconds >= 60 - 1e-9
    assert max_seconds(options, 1) > options.min_seconds


def test_quick_and_sustained() -> None:
    quick = Request(quick=True).options("clip.mp4", 32)
    assert (quick.profile, quick.launches, quick.min_seconds) == ("quick", 3, 1.0)
    sustained = Request(minutes=10, fps=30).options("clip.mp4", 32)
    assert (sustained.profile, sustained.launches, sustained.min_seconds, sustained.fps) == ("sustained", 1, 600.0, 30)
    assert 600 < max_seconds(sustained, 1) < 610


def test_a_slow_pace_has_the_time_that_it_needs() -> None:
    options = Request(fps=5).options("clip.mp4", 32)
    # 128 calls of 50 frames at 5 frames per second take 1,280 seconds.
    assert max_seconds(options, 50) == 1285.0
    assert max_seconds(Request().options("clip.mp4", 32), 50) == 30.0


@pytest.mark.parametrize(("text", "expected"), [("0x1", "1"), ("F0", "f0"), ("80", "80")])
def test_masks_are_written_as_taskset_takes_them(text: str, expected: str) -> None:
    Request(affinity=text)
    assert mask(text) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"quick": True, "minutes": 1.0},
        {"affinity": "cpu3"},
        {"affinity": "0"},
        {"affinity": "1_0"},
        {"threads": 2000},
        {"fps": float("nan")},
        {"fps": 0.0001},
        {"minutes": float("inf")},
        {"max_temperature_c": float("nan")},
    ],
)
def test_contradictions_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--"):
        Request(**fields)  # type: ignore[arg-type]
