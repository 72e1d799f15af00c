"""What a launch does and measures, on a fake library whose every number is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fake_launches import FRAMES, RESET, FakeLaunch, fake_launch
from interrupts import alive

from mvtool.bench.run_result import END_MARK

pytest_plugins = ["native_fixtures"]

MOST_GROWTH_KB = 256
"""Pages that the C library touches for the first time in a long run; a stored sample would be 2,000 kB."""


@pytest.fixture
def launch(tmp_path: Path, program: Path, fake_tflite: Path) -> FakeLaunch:
    return fake_launch(tmp_path / "run", program, fake_tflite)


@pytest.fixture
def litert_launch(tmp_path: Path, program: Path, fake_litert: Path) -> FakeLaunch:
    """The same ports; LiteRT finds them by name, so the plan's positions do not matter."""
    return fake_launch(tmp_path / "run", program, fake_litert)


def with_check(launch: FakeLaunch, steps: int) -> FakeLaunch:
    return launch.replace("end\n", f"check {steps} check.bin\nend\n")


# Sums of the frames 6, 22, 38, 6; the state begins as (2, 8).
EXPECTED_DUMP = [6, 2, 8, 22, 8, 4, 38, 30, 2, 6, 68, 1, 74, 0.5]


def test_the_check_holds_every_output_and_then_the_states(launch: FakeLaunch) -> None:
    result = with_check(launch, 4).run()
    assert launch.dump().tolist() == EXPECTED_DUMP
    assert result.check is not None
    assert (result.check.steps, result.check.file) == (4, "check.bin")
    assert (result.library.api, result.library.version, result.state_loop) == ("TfLite", "0.0.0-fake", "copy")


def test_litert_swaps_buffers(litert_launch: FakeLaunch) -> None:
    result = with_check(litert_launch, 4).run()
    assert litert_launch.dump().tolist() == EXPECTED_DUMP
    assert (result.library.api, result.library.version, result.state_loop) == ("LiteRt", None, "swap")


def test_litert_copies_where_buffers_differ_in_size(litert_launch: FakeLaunch) -> None:
    litert_launch.environment["FAKE_PADDED"] = "1"
    result = with_check(litert_launch, 4).run()
    assert litert_launch.dump().tolist() == EXPECTED_DUMP
    assert result.state_loop == "copy"


def test_states_begin_with_the_reset_value_before_the_check_and_before_the_timed_part(launch: FakeLaunch) -> None:
    """Every state that entered an invoke: 2 of the check, 3 of the warm-up, 2 timed; frames start over in each part."""
    launch.environment["FAKE_STATES"] = "states.bin"
    with_check(launch, 2).replace("warmup 0", "warmup 3").replace("timed 5", "timed 2").run()
    seen = np.frombuffer((launch.folder / "states.bin").read_bytes(), "<f4").reshape(-1, 2).tolist()
    assert seen == [[2, 8], [8, 4], [30, 2], [36, 1], [58, 0.5], [2, 8], [8, 4]]


def test_one_element_is_repeated_over_a_state(launch: FakeLaunch) -> None:
    launch.replace("file reset_memory.bin", "element 00004040")  # 3.0
    with_check(launch, 1).run()
    assert launch.dump().tolist() == [6, 3, 3, 9, 1.5]


def test_frames_are_fed_in_turn_from_the_first(launch: FakeLaunch) -> None:
    with_check(launch, 7).run()
    assert launch.dump()[:-2].reshape(7, 3)[:, 0].tolist() == [*FRAMES.sum(1), *FRAMES.sum(1), 6]


@pytest.mark.parametrize("timed", [1, 511, 512, 513, 2000])
def test_every_invoke_is_recorded(launch: FakeLaunch, timed: int) -> None:
    """Also where the runner's buffer of 512 is just full."""
    result = launch.replace("timed 5", f"timed {timed}").replace("warmup 0", "warmup 600").run()
    samples = result.samples
    assert [len(column) for column in (samples.start_ns, samples.input_ns, samples.inference_ns)] == [timed] * 3
    assert [len(column) for column in (samples.state_ns, samples.output_ns)] == [timed] * 2
    assert (len(result.warmup_ns), samples.late_ns, result.stopped) == (600, (), "complete")


def test_the_parts_of_a_step_do_not_overlap(launch: FakeLaunch) -> None:
    samples = launch.replace("timed 5", "timed 1500").run().samples
    parts = zip(samples.input_ns, samples.inference_ns, samples.state_ns, samples.output_ns, strict=True)
    ends = [start + sum(part) for start, part in zip(samples.start_ns, parts, strict=True)]
    assert all(end <= begin for end, begin in zip(ends, samples.start_ns[1:], strict=False))


def test_a_paced_part_has_the_frames_of_its_seconds(launch: FakeLaunch) -> None:
    """200 calls per second for 0.05 s, and 7 calls where seconds are fewer."""
    launch.replace("end\n", "pace 200.000000000\nend\n").replace("timed 5 0.000000", "timed 1 0.050000")
    assert len(launch.run().samples.start_ns) == 10
    launch.replace("timed 1 0.050000", "timed 7 0.010000")
    assert len(launch.run().samples.start_ns) == 7


def test_a_warm_up_of_seconds_alone_has_invokes(launch: FakeLaunch) -> None:
    assert launch.replace("warmup 0 0.000000", "warmup 0 0.020000").run().warmup_ns


@pytest.mark.parametrize("most", ["0.050000", "0.000000"])
def test_the_timed_part_ends_after_its_maximum(launch: FakeLaunch, most: str) -> None:
    """However many invokes are missing; at least one is always measured."""
    result = launch.replace("timed 5 0.000000 60.000000", f"timed 1000000000 0.000000 {most}").run()
    assert result.stopped == "time"
    assert result.samples.start_ns[0] == 0
    assert all(start < float(most) * 1e9 for start in result.samples.start_ns[1:])


def test_no_paced_invoke_begins_after_the_maximum(launch: FakeLaunch) -> None:
    """Calls are due at 0, 20, 40 and 60 ms; a machine that is late may do fewer."""
    launch.replace("end\n", "pace 50.000000000\nend\n").replace(
        "timed 5 0.000000 60.000000", "timed 9 0.000000 0.050000"
    )
    result = launch.run()
    assert (result.stopped, 1 <= len(result.samples.start_ns) <= 3) == ("time", True)


@pytest.mark.parametrize("pace", [200, 1000 / 3])
def test_paced_invokes_never_begin_before_they_are_due(launch: FakeLaunch, pace: float) -> None:
    samples = launch.replace("timed 5", "timed 40").replace("end\n", f"pace {pace:.9f}\nend\n").run().samples
    due = [int(number * 1e9 / float(f"{pace:.9f}")) for number in range(40)]
    assert samples.late_ns == tuple(start - when for start, when in zip(samples.start_ns, due, strict=True))
    assert min(samples.late_ns) >= 0


def test_a_pace_that_cannot_be_held_skips_no_frame(launch: FakeLaunch) -> None:
    """Frames 1 ns apart: every invoke is late and follows at once, and the last comes long after it was due."""
    launch.environment["FAKE_STATES"] = "states.bin"
    launch.replace("timed 5", "timed 100").replace("warmup 0", "warmup 1")
    samples = launch.replace("end\n", "pace 1000000000.000000000\nend\n").run().samples
    first = np.frombuffer((launch.folder / "states.bin").read_bytes(), "<f4").reshape(-1, 2)[2:, 0]
    assert np.diff(first).tolist() == np.resize(FRAMES.sum(1), 99).tolist()
    assert samples.late_ns[-1] > samples.late_ns[0]
    assert len(samples.late_ns) == 100


def test_memory_is_read_at_every_place_and_does_not_shrink(launch: FakeLaunch) -> None:
    marks = launch.run().memory
    assert [mark.at.value for mark in marks] == ["start", "library", "loaded", "first", "end"]
    peaks = [mark.vm_hwm_kb for mark in marks]
    assert peaks == sorted(peaks)
    assert all(0 < mark.vm_rss_kb <= mark.vm_hwm_kb for mark in marks)


def test_memory_is_read_between_calls_where_the_plan_says(launch: FakeLaunch) -> None:
    marks = launch.replace("end\n", "mark 1\nmark 3\nmark 50\nend\n").run().marks
    assert [mark.calls for mark in marks] == [1, 3]  # the timed part has five calls
    for mark in marks:
        assert mark.rss_anon_kb
        assert mark.rss_file_kb
        assert mark.rss_shmem_kb is not None
        assert mark.rss_anon_kb + mark.rss_file_kb + mark.rss_shmem_kb == mark.vm_rss_kb <= mark.vm_hwm_kb


def test_the_mappings_are_copied_after_the_last_call(launch: FakeLaunch) -> None:
    launch.replace("end\n", "maps maps.txt\nend\n").run()
    maps = (launch.folder / "maps.txt").read_text()
    assert maps.endswith("\n")
    assert "libfake_tflite.so" in maps
    assert "\nRss:" in maps


def test_samples_do_not_count_as_memory(launch: FakeLaunch) -> None:
    launch.replace("timed 5", "timed 1000")
    short = launch.run().memory[-1].vm_hwm_kb
    long = launch.replace("timed 1000", "timed 50000").run()
    assert len(long.samples.start_ns) == 50000
    assert long.memory[-1].vm_hwm_kb - short < MOST_GROWTH_KB


def test_the_affinity_holds_and_is_told(launch: FakeLaunch) -> None:
    processor = min(os.sched_getaffinity(0))
    assert launch.run().affinity is None
    launch.replace("threads 1", f"threads 1\naffinity 0{1 << processor:X}")
    assert launch.run().affinity == f"{1 << processor:x}"


@pytest.mark.parametrize(
    ("wish", "name", "evidence"),
    [("FAKE_NONE", "unknown", "did not log"), ("FAKE_XNNPACK", "XNNPACK", "logged that it created")],
)
def test_tflites_delegate_is_known_from_its_log(launch: FakeLaunch, wish: str, name: str, evidence: str) -> None:
    launch.environment[wish] = "1"
    delegate = launch.run().delegate
    assert (delegate.name, delegate.fully_accelerated) == (name, None)
    assert evidence in delegate.evidence


@pytest.mark.parametrize(("wish", "name", "fully"), [("FAKE_ALL", "XNNPACK", True), ("FAKE_PARTLY", "unknown", False)])
def test_litert_tells_its_delegate(litert_launch: FakeLaunch, wish: str, name: str, fully: bool) -> None:
    litert_launch.environment[wish] = "1"
    delegate = litert_launch.run().delegate
    assert (delegate.name, delegate.fully_accelerated) == (name, fully)
    assert "LiteRtCompiledModelIsFullyAccelerated" in delegate.evidence


def test_threads_reach_the_library_and_its_log_is_passed_on(launch: FakeLaunch) -> None:
    ended = launch.replace("threads 1", "threads 3").start()
    assert (ended.returncode, "fake: 3 threads" in ended.stderr) == (0, True)


def test_litert_gets_its_threads_as_an_option_of_xnnpack(litert_launch: FakeLaunch) -> None:
    ended = litert_launch.replace("threads 1", "threads 3").start()
    assert (ended.returncode, "fake: xnnpack num_threads = 3\n" in ended.stderr) == (0, True)


def test_litert_gets_the_file_of_packed_weights(litert_launch: FakeLaunch) -> None:
    ended = litert_launch.replace("threads 1", "threads 1\nweight_cache packed.bin").start()
    assert 'fake: xnnpack num_threads = 1\nweight_cache_file_path = "packed.bin"\n' in ended.stderr


def test_a_result_ends_with_the_mark_and_nothing_else_stays(launch: FakeLaunch) -> None:
    before = {path.name for path in launch.folder.iterdir()}
    launch.run()
    text = (launch.folder / "result.json").read_text(encoding="ascii")
    assert text.endswith(f'"end":"{END_MARK}"}}\n')
    assert next(iter(json.loads(text))) == "schema"
    assert {path.name for path in launch.folder.iterdir()} - before == {"plan.txt", "result.json"}


def test_odd_names_stay_valid_json(launch: FakeLaunch) -> None:
    library = next(launch.folder.glob("*.so"))
    library.rename(launch.folder / 'lib"é\\.so')
    assert launch.replace(library.name, 'lib"é\\.so').run().library.file.startswith('lib"')


def test_a_runner_that_is_killed_leaves_no_file(launch: FakeLaunch) -> None:
    launch.replace("timed 5", "timed 100000").replace("end\n", "pace 100.000000000\nend\n")
    launch.environment["FAKE_STATES"] = "states.bin"
    with launch.process() as process:
        before = {path.name for path in launch.folder.iterdir()}
        while not (launch.folder / "states.bin").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert {path.name for path in launch.folder.iterdir()} - before <= {"states.bin"}


STARTS = """
import os, subprocess, sys
environment = {**os.environ, "MVTOOL_END_WITH_PARENT": str(os.getpid())}
process = subprocess.Popen([sys.argv[1], "plan.txt"], env=environment)
print(process.pid, flush=True)
process.wait()
"""


def test_a_runner_does_not_outlive_the_process_that_it_is_told(launch: FakeLaunch) -> None:
    """Nor does it go on for the hour that its plan says."""
    launch.replace("timed 5 0.000000 60.000000", "timed 360000 0.000000 3600.000000")
    launch.replace("end\n", "pace 100.000000000\nend\n")
    (launch.folder / "plan.txt").write_text(launch.plan)
    environment = {**os.environ, "FAKE_STATES": "states.bin"}
    command = [sys.executable, "-c", STARTS, str(launch.program)]
    with subprocess.Popen(
        command, cwd=launch.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        runner = int(parent.stdout.readline())
        end = time.monotonic() + 20
        while not (launch.folder / "states.bin").exists():
            assert alive(runner)
            assert time.monotonic() < end
            time.sleep(0.01)
        parent.kill()
    try:
        end = time.monotonic() + 2
        while alive(runner):
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        with suppress(ProcessLookupError):
            os.kill(runner, signal.SIGKILL)


def test_a_runner_whose_parent_is_gone_already_does_nothing(launch: FakeLaunch) -> None:
    launch.environment["MVTOOL_END_WITH_PARENT"] = "1"
    assert "the process 1, named by MVTOOL_END_WITH_PARENT, is not the parent" in launch.refused(67)
    launch.environment["MVTOOL_END_WITH_PARENT"] = "no number"
    assert "expected the number of the process" in launch.refused(64)
    launch.environment["MVTOOL_END_WITH_PARENT"] = str(os.getpid())
    launch.run()


def test_the_reset_value_is_the_one_of_the_plan() -> None:
    """The expected numbers of this file are computed from it."""
    assert (RESET, FRAMES.sum(1).tolist()) == ((2.0, 8.0), [6, 22, 38])
