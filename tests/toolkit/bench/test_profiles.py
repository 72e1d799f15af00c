"""Profiles keep MLPerf's minimum, and contradictions are refused."""

from __future__ import annotations

import pytest

from mvtool.bench.profiles import Request, max_seconds
from mvtool.errors import UsageError


@pytest.mark.parametrize("launches", [None, 1, 4, 7, 20])
def test_the_default_measures_1024_invokes_and_60_seconds_in_all(launches: int | None) -> None:
    options = Request(launches=launches).options("clip.mp4", 32)
    assert options.profile == "default"
    assert options.launches * options.min_invokes >= 1024
    assert options.launches * options.min_seconds >= 60 - 1e-9
    assert max_seconds(options) > options.min_seconds


def test_quick_and_sustained() -> None:
    quick = Request(quick=True).options("clip.mp4", 32)
    assert (quick.profile, quick.launches, quick.min_seconds) == ("quick", 3, 1.0)
    sustained = Request(minutes=10, fps=30).options("clip.mp4", 32)
    assert (sustained.profile, sustained.launches, sustained.min_seconds, sustained.fps) == ("sustained", 1, 600.0, 30)
    assert max_seconds(sustained) > 600


@pytest.mark.parametrize("fields", [{"quick": True, "minutes": 1.0}, {"affinity": "cpu3"}, {"affinity": "0"}])
def test_contradictions_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--"):
        Request(**fields)  # type: ignore[arg-type]
