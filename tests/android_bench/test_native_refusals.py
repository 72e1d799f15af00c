"""What is wrong with a library, a model or a file ends in its own exit status, a message, and no result."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fake_launches import FakeLaunch, compiled_fake, fake_launch

from mvtool.bench.device import Runner

pytest_plugins = ["native_fixtures"]

USAGE, LIBRARY, MODEL, RUN, FILES = 64, 65, 66, 67, 68


@pytest.fixture
def launch(tmp_path: Path, program: Path, fake_tflite: Path) -> FakeLaunch:
    return fake_launch(tmp_path / "run", program, fake_tflite)


@pytest.fixture
def litert_launch(tmp_path: Path, program: Path, fake_litert: Path) -> FakeLaunch:
    return fake_launch(tmp_path / "run", program, fake_litert)


def library_of(launch: FakeLaunch) -> Path:
    return next(launch.folder.glob("*.so"))


def test_a_missing_library(launch: FakeLaunch) -> None:
    library_of(launch).unlink()
    assert "cannot open shared object file" in launch.refused(LIBRARY)


def test_a_library_that_is_none(launch: FakeLaunch) -> None:
    library_of(launch).write_bytes(b"no library")
    assert "the library cannot be opened" in launch.refused(LIBRARY)


def test_a_plan_without_a_library(launch: FakeLaunch) -> None:
    said = launch.replace(f"library {library_of(launch).name}", "library -").refused(USAGE)
    assert "the plan names none" in said


def test_a_library_of_something_else(launch: FakeLaunch) -> None:
    source = launch.folder / "other.c"
    source.write_text("int other(void);\nint other(void) { return 0; }\n", encoding="ascii")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library_of(launch)), str(source)], check=True)
    said = launch.refused(LIBRARY)
    assert "exports neither the LiteRt nor the TfLite functions" in said
    assert "libLiteRt.so" in said


def test_a_litert_that_takes_other_arguments(tmp_path: Path, program: Path) -> None:
    old = compiled_fake(tmp_path, "litert.c", "libLiteRt.so", "-DOLD")
    said = fake_launch(tmp_path / "run", program, old).refused(LIBRARY)
    assert "older than 2.1.6" in said
    assert "LiteRtCreateModelFromAllocation" in said


def test_a_library_that_lacks_one_function(tmp_path: Path, program: Path) -> None:
    cut = compiled_fake(tmp_path, "tflite.c", "libcut.so", "-DTfLiteTensorByteSize=renamed")
    assert "lacks the function TfLiteTensorByteSize" in fake_launch(tmp_path / "run", program, cut).refused(LIBRARY)


def test_an_environment_that_cannot_be_made(litert_launch: FakeLaunch) -> None:
    litert_launch.environment["FAKE_FAIL"] = "environment"
    assert "failed to make an environment (status 3)" in litert_launch.refused(LIBRARY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the model model.tflite cannot be opened: No such file"),
        (b"", "the model model.tflite is empty"),
        (b"other", "TFLite refuses the model model.tflite"),
    ],
)
def test_a_model_that_is_refused(launch: FakeLaunch, content: bytes | None, message: str) -> None:
    (launch.folder / "model.tflite").unlink()
    if content is not None:
        (launch.folder / "model.tflite").write_bytes(content)
    assert message in launch.refused(MODEL)


def test_the_tflite_functions_take_no_weight_cache(launch: FakeLaunch) -> None:
    said = launch.replace("threads 1", "threads 1\nweight_cache packed.bin").refused(USAGE)
    assert "take no weight cache; give libLiteRt.so" in said


@pytest.mark.parametrize(
    ("wish", "status", "message"),
    [
        ("allocate", MODEL, "cannot allocate the tensors"),
        ("invoke", RUN, "failed to execute the model (status 1)"),
    ],
)
def test_failures_of_tflite(launch: FakeLaunch, wish: str, status: int, message: str) -> None:
    launch.environment["FAKE_FAIL"] = wish
    said = launch.refused(status)
    assert message in said
    assert "fake: 1 threads" in said


@pytest.mark.parametrize(
    ("wish", "status", "message"),
    [
        ("model", MODEL, "failed to load the model"),
        ("compile", MODEL, "failed to compile the model"),
        ("lock", RUN, "failed to lock a buffer"),
        ("run", RUN, "failed to run the model"),
    ],
)
def test_failures_of_litert(litert_launch: FakeLaunch, wish: str, status: int, message: str) -> None:
    litert_launch.environment["FAKE_FAIL"] = wish
    assert message in litert_launch.refused(status)


def test_the_last_words_of_a_library_that_aborts_are_passed_on(launch: FakeLaunch) -> None:
    launch.environment["FAKE_FAIL"] = "abort"
    assert "fake: the last words" in launch.refused(-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "input 1 frame 16 frames.bin 3",
            "input 1 frame 8 frames.bin 6",
            "input 1 of the model has 16 bytes, the plan says",
        ),
        ("input 1 frame", "input 2 frame", "the model has 2 inputs, the plan puts frame at position 2"),
        ("output 0 scores 12", "output 0 scores 8", "output 0 of the model has 12 bytes"),
        ("output 0 scores 12\n", "", "2 inputs and 2 outputs, the plan says 2 and 1"),
        ("state memory 0 state_in 1", "state memory 0 state_in 0", "output 0 of the model has 12 bytes"),
    ],
)
def test_ports_of_tflite_that_are_not_the_plans(launch: FakeLaunch, old: str, new: str, message: str) -> None:
    assert message in launch.replace(old, new).refused(MODEL)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input 1 frame", "input 1 picture", "has no input named picture"),
        ("1 state_out 8", "1 state_next 8", "has no output named state_next"),
        ("output 0 scores 12", "output 0 scores 8", "port scores of the model has 12 bytes, the plan says 8"),
        ("output 0 scores 12\n", "", "the model has 2 outputs, the plan says 1"),
    ],
)
def test_ports_of_litert_that_are_not_the_plans(litert_launch: FakeLaunch, old: str, new: str, message: str) -> None:
    assert message in litert_launch.replace(old, new).refused(MODEL)


@pytest.mark.parametrize("name", ["frames.bin", "reset_memory.bin"])
def test_files_of_another_size(launch: FakeLaunch, name: str) -> None:
    path = launch.folder / name
    path.write_bytes(path.read_bytes() + b"\0")
    assert f"{name} has " in launch.refused(FILES)
    path.unlink()
    assert f"{name} cannot be opened" in launch.refused(FILES)


def test_a_count_that_overflows_is_no_match(launch: FakeLaunch) -> None:
    """2^52 arrays of 4096 bytes are 2^64 bytes, which is 0 in 64 bits."""
    (launch.folder / "frames.bin").write_bytes(b"")
    launch.replace("input 1 frame 16 frames.bin 3", f"input 1 frame 4096 frames.bin {1 << 52}")
    assert "frames.bin has 0 bytes" in launch.refused(FILES)


def test_a_file_that_becomes_shorter_meanwhile(launch: FakeLaunch) -> None:
    launch.replace("timed 5", "timed 100000").replace("end\n", "pace 100.000000000\nend\n")
    launch.environment["FAKE_STATES"] = "states.bin"
    with launch.process() as process:
        while not (launch.folder / "states.bin").exists():
            assert process.poll() is None
        os.truncate(launch.folder / "frames.bin", 0)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, "frames.bin has become shorter" in said) == (FILES, True)


def test_a_folder_that_is_not_there(launch: FakeLaunch) -> None:
    said = launch.replace("result result.json", "result nowhere/result.json").refused(FILES)
    assert "nowhere/result.json cannot be written" in said


def test_an_old_result_does_not_pass_for_a_new_one(launch: FakeLaunch) -> None:
    launch.run()
    launch.environment["FAKE_FAIL"] = "invoke"
    launch.refused(RUN)


def test_a_disk_that_is_full(launch: FakeLaunch) -> None:
    (launch.folder / "full.bin").symlink_to("/dev/full")
    said = launch.replace("end\n", "check 1 full.bin\nend\n").refused(FILES)
    assert "full.bin cannot be written: No space left on device" in said


def test_processors_that_are_not_there(launch: FakeLaunch) -> None:
    said = launch.replace("threads 1", "threads 1\naffinity 8" + "0" * 200).refused(RUN)
    assert "the system refuses the affinity" in said
    said = launch.replace("affinity 8", "affinity 8" + "0" * 100).refused(RUN)
    assert "the affinity names processor 1203" in said


def test_the_real_library_refuses_what_is_no_model(tmp_path: Path, program: Path, litert: Runner) -> None:
    assert litert.library is not None
    assert "LiteRT failed to load the model" in fake_launch(tmp_path / "run", program, litert.library).refused(MODEL)
