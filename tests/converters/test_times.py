"""What the stages of a conversion cost, added up from its events."""

from __future__ import annotations

import io
import json
from contextlib import AbstractContextManager, nullcontext

from manifests import build_manifest
from rich.console import Console

from mvtool.build import BuildManifest, ConversionTimes, StageTime
from mvtool.cli.build_view import print_times
from mvtool.converters.progress import StageEvent, part, stage, timing_parts
from mvtool.converters.times import PREPARE, Times
from mvtool.converters.worker import Stages


class Prepared:
    """The times of a template."""

    busy_seconds, cpu_seconds = 6.5, 6.25


def test_shared_stages_are_added_up_and_events_passed_on() -> None:
    seen: list[StageEvent] = []
    times = Times(seen.append)
    for seconds in (1.5, 0.25):
        times(StageEvent(None, None, "load", "start"))
        times(StageEvent(None, None, "load", "done", seconds, cpu_seconds=seconds / 2))
    times(StageEvent("tflite", "int8", "emit", "start"))
    times(StageEvent("tflite", "int8", "emit", "done", 9.0, cpu_seconds=9.0))
    found = times.report(None, 1, 0)
    assert found.stages == {"load": StageTime(seconds=1.75, cpu_seconds=0.875)}
    assert found.reused == ()
    assert len(seen) == 6


def test_a_stage_that_still_runs_counts_up_to_now() -> None:
    times = Times(lambda event: None)
    with stage(times, "golden"):
        sum(range(200_000))
        running = times.report(None, 1, 1).stages["golden"]
    assert 0 < running.seconds <= times.report(None, 1, 1).stages["golden"].seconds


def test_what_was_reused_is_said() -> None:
    found = Times(lambda event: None).report(Prepared(), 7, 3)  # type: ignore[arg-type]
    assert found.stages[PREPARE] == StageTime(seconds=6.5, cpu_seconds=6.25)
    assert [line.split()[0] for line in found.reused] == ["7", "clips"]


def test_a_part_of_a_stage_is_a_stage_of_its_own() -> None:
    lines = io.StringIO()
    stages = Stages(lines)
    with stages.stage("emit"), part("check"):
        sum(range(500_000))
    with part("nobody times this"):
        pass
    told = [(line["stage"], line["status"]) for line in map(json.loads, lines.getvalue().splitlines())]
    assert told == [("emit", "start"), ("check", "start"), ("check", "done"), ("emit", "done")]
    assert stages.seconds["emit"] < stages.seconds["check"]
    assert stages.cpu_seconds["emit"] < stages.cpu_seconds["check"]


def test_parts_end_with_their_stage() -> None:
    names: list[str] = []

    def timed(name: str) -> AbstractContextManager[None]:
        names.append(name)
        return nullcontext()

    with timing_parts(timed), part("inside"):
        pass
    with part("outside"):
        pass
    assert names == ["inside"]


def test_times_are_printed_by_stage() -> None:
    manifest = BuildManifest.model_validate(build_manifest().model_dump(by_alias=True))
    shared = {"capture": StageTime(seconds=6.0, cpu_seconds=5.5), "save": StageTime(seconds=0.01, cpu_seconds=0.01)}
    times = ConversionTimes(seconds=20.0, stages=shared, reused=("clips were measured once",))
    first = manifest.artifacts[0].model_copy(update={"seconds": {"emit": 3.25}, "cpu_seconds": {"emit": 3.0}})
    told = io.StringIO()
    console = Console(file=told, width=150)
    print_times(manifest.model_copy(update={"times": times, "artifacts": (first,)}), console)
    rows = told.getvalue().splitlines()
    assert [row.split()[-2:] for row in rows if row.startswith(("for all", first.file))] == [
        ["6.0", "5.5"],
        ["3.2", "3.0"],
    ]
    assert "save" not in told.getvalue()
    assert rows[-1] == "reused: clips were measured once"
