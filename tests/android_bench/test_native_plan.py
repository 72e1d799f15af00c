"""The native runner takes a plan word by word, and refuses every other text with the number of the line."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from fake_launches import FakeLaunch, fake_launch

from mvtool.android_bench.links import Link
from mvtool.android_bench.runners import compile_runner
from mvtool.android_bench.toolchain import Target, toolchain_for
from mvtool.ports import Runtime

pytest_plugins = ["native_fixtures"]


@pytest.fixture
def launch(tmp_path: Path, program: Path, fake_tflite: Path) -> FakeLaunch:
    return fake_launch(tmp_path / "run", program, fake_tflite)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("mvtool.plan/1", "mvtool.plan/2", 1, "begins with 'mvtool.plan/1'"),
        ("runtime tflite", "runtime executorch", 2, "for another runtime"),
        ("threads 1", "thread 1", 6, "not known"),
        ("threads 1", "threads 1\nthreads 2", 7, "repeated"),
        ("threads 1\n", "", 11, "missing before the end, got 'threads'"),
        ("warmup 0 0.000000\n", "", 11, "missing before the end, got 'warmup'"),
        ("threads 1", "threads 0", 6, "positive number"),
        ("threads 1", "threads 1025", 6, "at most 1024"),
        ("threads 1", "threads  1", 6, "separated by one space"),
        ("threads 1", "threads 1 ", 6, "separated by one space"),
        ("threads 1", "threads", 6, "another number of words"),
        ("threads 1", "threads 1\t", 6, "control characters"),
        ("threads 1", "threads 1\naffinity 0x3", 7, "hexadecimal mask"),
        ("threads 1", "threads 1\naffinity 00", 7, "at least one bit"),
        ("threads 1", "threads " + "1 " * 20 + "1", 6, "at most 16 words"),
        ("frame 16 frames.bin 3", "frame 16 frames.bin 0", 7, "positive number of stored arrays"),
        ("frame 16 frames.bin 3", "frame 16.0 frames.bin 3", 7, "positive number of bytes"),
        ("frame 16 frames.bin 3", "frame 99999999999999999999 frames.bin 3", 7, "positive number of bytes"),
        ("input 1", "input -1", 7, "position is a whole number"),
        ("file reset_memory.bin", "text reset_memory.bin", 8, "'element' or 'file'"),
        ("file reset_memory.bin", "element 0", 8, "1 to 16 bytes"),
        ("file reset_memory.bin", "element 0g", 8, "1 to 16 bytes"),
        ("file reset_memory.bin", "element " + "00" * 17, 8, "1 to 16 bytes"),
        ("file reset_memory.bin", "element 000000", 8, "no whole number of elements"),
        ("warmup 0 0.000000", "warmup 0 nan", 10, "decimal number"),
        ("warmup 0 0.000000", "warmup 0 1e3", 10, "decimal number"),
        ("warmup 0 0.000000", "warmup 0 0x10", 10, "decimal number"),
        ("warmup 0 0.000000", "warmup 0 1.2.3", 10, "decimal number"),
        ("timed 5", "timed 0", 11, "timed invokes are a positive number"),
        ("end\n", "pace 0.0000001\nend\n", 12, "at least 0.001"),
        ("end\n", "check 0 check.bin\nend\n", 12, "steps are a positive number"),
        ("threads 1", 'threads 1\nweight_cache pack"ed.bin', 7, "neither quotes nor backslashes"),
        ("threads 1", "threads 1\nweight_cache pack\\ed.bin", 7, "neither quotes nor backslashes"),
        ("threads 1", "threads 1\nkeep_model_pages yes", 7, "another number of words"),
        ("end\n", "mark 0\nend\n", 12, "a mark is a positive number"),
        ("end\n", "mark 3\nmark 3\nend\n", 13, "marks grow"),
        ("end\n", "end\nend\n", 13, "nothing may follow"),
        ("end\n", "end", 12, "breaks off"),
        ("end\n", "", 12, "ends with 'end'"),
    ],
)
def test_a_plan_that_is_not_one_is_refused(launch: FakeLaunch, old: str, new: str, line: int, message: str) -> None:
    said = launch.replace(old, new).refused(64)
    assert f"plan.txt, line {line}: " in said
    assert message in said


RING = "ring memory 2 1 4 file reset_memory.bin\nslot 0 first\nslot 2 second\nnewest 1 next\n"
STATE = "state memory 0 state_in 1 state_out 8 file reset_memory.bin\n"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("ring memory 2 1", "ring memory 1 1", 8, "more slots than new entries"),
        ("ring memory 2 1", "ring memory 2 0", 8, "new entries are a positive number"),
        ("ring memory 2 1 4", "ring memory 2 1 0", 8, "positive number of bytes"),
        ("file reset", "text reset", 8, "'element' or 'file'"),
        ("slot 0 first\n", "", 14, "lacks some of its 'slot' or 'newest' lines"),
        ("newest 1 next\n", "", 14, "lacks some of its 'slot' or 'newest' lines, got 'memory'"),
        ("newest 1 next\n", "newest 1 next\nnewest 2 more\n", 12, "belongs to no ring before it, got 'newest'"),
        ("newest 1 next\n", "newest 1 next\nslot 3 third\n", 12, "belongs to no ring before it, got 'slot'"),
        (RING, "slot 0 first\n" + RING, 8, "belongs to no ring before it"),
        (RING, STATE + "slot 2 second\n", 9, "belongs to no ring before it"),
        ("newest 1 next\n", STATE, 11, "lacks some of its 'slot' or 'newest' lines"),
        ("slot 0 first", "slot x first", 9, "position is a whole number"),
    ],
)
def test_a_ring_that_is_not_one_is_refused(launch: FakeLaunch, old: str, new: str, line: int, message: str) -> None:
    said = launch.replace(STATE, RING).replace(old, new).refused(64)
    assert f"plan.txt, line {line}: " in said
    assert message in said


def test_a_file_that_is_no_text_is_refused(launch: FakeLaunch) -> None:
    launch.plan += "\0"
    assert "bytes that are no text" in launch.refused(64)


def test_a_huge_file_is_refused_unread(launch: FakeLaunch) -> None:
    launch.plan = "x" * (4 << 20) + "x"
    assert "more than 4 MiB" in launch.refused(64)


def test_a_missing_plan_is_an_error_of_reading(launch: FakeLaunch) -> None:
    ended = launch.start("other.txt")
    assert (ended.returncode, "other.txt cannot be opened" in ended.stderr) == (68, True)
    assert launch.start(".").returncode == 68


@pytest.mark.parametrize("arguments", [("plan.txt", "more"), ("--unknown",), ("--bandwidth",)])
def test_other_command_lines_are_refused(launch: FakeLaunch, arguments: tuple[str, ...]) -> None:
    ended = launch.start(*arguments)
    assert (ended.returncode, "usage: " in ended.stderr) == (64, True)


def test_the_version_names_the_program_and_its_sources(launch: FakeLaunch) -> None:
    name, version = launch.start("--version").stdout.split()
    assert name == "mvtool-run-tflite"
    assert version == launch.run().runner.version
    assert version not in ("", "unknown")


def test_the_rate_of_copying_is_one_line_of_json(launch: FakeLaunch) -> None:
    ended = launch.start("--bandwidth", str(1 << 20))
    assert (ended.returncode, ended.stdout.count("\n")) == (0, 1)
    measured = json.loads(ended.stdout)
    assert measured["bytes"] == 1 << 20
    # From an emulated phone to a server's cache.
    assert 1e6 < measured["bytes_per_second"] < 1e13


@pytest.mark.parametrize("size", ["4095", "4294967297", "-1", " 4096", "1e6", "99999999999999999999", ""])
def test_sizes_that_are_none_are_refused(launch: FakeLaunch, size: str) -> None:
    ended = launch.start("--bandwidth", size)
    assert (ended.returncode, "from 4096 to 4294967296" in ended.stderr) == (64, True)


def mutated(plan: str, generator: random.Random) -> str:
    """The plan with a few bytes, words or lines changed."""
    text = plan
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(text) + 1)
        lines = text.split("\n")
        text = generator.choice(
            [
                text[:at] + chr(generator.randrange(1, 256)) + text[at + 1 :],
                text[:at] + text[at + generator.randint(1, 30) :],
                text[:at] + text[generator.randrange(len(text) + 1) :][: generator.randint(1, 60)] + text[at:],
                "\n".join(generator.sample(lines, len(lines))),
                text.replace(
                    generator.choice(text.split() or ["x"]), generator.choice(["9" * 30, "-1", "", "0", "."]), 1
                ),
            ]
        )
    return text


@pytest.mark.slow
def test_no_text_makes_the_runner_crash(tmp_path: Path, fake_tflite: Path, fake_litert: Path) -> None:
    """With the compiler's checks of memory and of undefined behaviour; 600 mutated plans, on both interfaces in turn."""
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -g"
    checked = toolchain_for(Target.HOST).with_arguments(f"-DCMAKE_C_FLAGS={flags}")
    launch = fake_launch(tmp_path / "run", compile_runner(Runtime.TFLITE, checked, Link()), fake_tflite)
    shutil.copy2(fake_litert, launch.folder / fake_litert.name)
    # The program leaves its memory to the system when it ends.
    launch.environment["ASAN_OPTIONS"] = "detect_leaks=0"
    launch.replace("timed 5 0.000000 60.000000", "timed 5 0.000000 0.050000\ncheck 2 check.bin\npace 1000.000000000")
    plans = [launch.plan, launch.plan.replace(fake_tflite.name, fake_litert.name)]
    generator, statuses = random.Random(4), set()
    for plan in plans:
        launch.plan = plan
        launch.run()
    for number in range(600):
        launch.plan = mutated(plans[number % 2], generator)
        ended = launch.start()
        assert "Sanitizer" not in ended.stderr, (launch.plan, ended.stderr)
        assert "runtime error" not in ended.stderr, (launch.plan, ended.stderr)
        assert ended.returncode in (0, 64, 65, 66, 67, 68), (launch.plan, ended.stderr)
        statuses.add(ended.returncode)
    assert {0, 64, 66} <= statuses
