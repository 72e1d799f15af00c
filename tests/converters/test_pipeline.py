"""The pipeline as a whole: what lies in a build, that bytes repeat, and that a failure loses nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from interrupts import interruptible_children
from rewrite_models import Fifo, randomise

from mvtool import cli
from mvtool.build import Build
from mvtool.converters import pipeline
from mvtool.converters.inputs import parse_input
from mvtool.converters.jobs import Job
from mvtool.converters.progress import StageEvent
from mvtool.converters.supervisor import JobFailure, Outcome, Supervisor
from mvtool.errors import (
    CaptureError,
    ConversionError,
    MissingExtraError,
    MvtoolError,
    StorageError,
    UsageError,
    VerificationError,
)
from mvtool.files import sha256_of
from mvtool.ports import Precision, Quantization, Runtime

pytestmark = pytest.mark.filterwarnings("ignore")

SMALLEST = 8192
"""Bytes that a file may have on a disk that is nearly full."""
SHAPE = (parse_input("1x3x1x12x12"),)
NETWORK = """
import torch
from torch import nn


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)
        self.register_buffer("memory", torch.zeros(1, 4, 8, 8))

    def forward(self, frame):
        seen = self.features(frame).relu()
        scores = self.head((seen - self.memory).mean((2, 3)))
        self.memory.copy_(0.5 * self.memory + 0.5 * seen)
        return scores


def make():
    torch.manual_seed(0)
    return Memory()
"""


def convert(out: Path, **options: object) -> Build:
    torch.manual_seed(0)
    return pipeline.convert(randomise(Fifo()), inputs=SHAPE, out=out, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Build, list[StageEvent]]:
    events: list[StageEvent] = []
    out = tmp_path_factory.mktemp("build") / "fifo"
    made = convert(out, targets=["tflite"], precisions=["fp32", "int8"], listener=events.append)
    return made, events


def test_build_holds_what_its_manifest_says(build: tuple[Build, list[StageEvent]]) -> None:
    made, _ = build
    for entry in made.manifest.files:
        made.check_hash(entry)
    names = {str(path.relative_to(made.folder)) for path in made.folder.iterdir()}
    assert names == {"Fifo_fp32.tflite", "Fifo_int8.tflite", "golden.npz", "manifest.json", "reference"}
    assert [path.name for path in made.folder.parent.iterdir()] == ["fifo"], "nothing is left beside the build"


def test_stages_are_told_with_their_times(build: tuple[Build, list[StageEvent]]) -> None:
    made, events = build
    done = [(e.target, e.precision, e.stage) for e in events if e.status == "done"]
    shared = [stage for target, _, stage in done if target is None]
    assert shared == ["load", "capture", "save", "load", "calibrate", "golden"]
    assert ("tflite", "int8", "emit") in done
    assert all(e.seconds is not None and e.seconds >= 0 for e in events if e.status == "done")
    for precision, own in (("fp32", set[str]()), ("int8", {"calibration"})):
        entry = made.artifact("tflite", precision)
        assert set(entry.seconds) == set(entry.cpu_seconds) >= {"load", "lower", "emit", "check", "golden", *own}
    times = made.manifest.times
    assert times is not None
    assert set(times.stages) >= {"load", "capture", "save", "calibrate", "golden"}
    assert all(stage.cpu_seconds >= 0 for stage in times.stages.values())


def test_rewrites_and_delegation_are_on_record(build: tuple[Build, list[StageEvent]]) -> None:
    for precision in ("fp32", "int8"):
        artifact = build[0].artifact("tflite", precision)
        assert artifact.delegation == {"delegates": 1, "fully_accelerated": True}
        assert [r.name for r in artifact.rewrites][:2] == ["capture", "fold batch norm"]
        assert all(r.max_difference < 1e-5 for r in artifact.rewrites)


def test_what_int8_was_calibrated_on_is_on_record(build: tuple[Build, list[StageEvent]]) -> None:
    calibration = build[0].manifest.calibration
    assert calibration is not None
    assert (calibration.bundled, calibration.clips, calibration.origin) == (True, 1, "demo_clip.mp4")
    assert calibration.steps >= 50
    assert "bundled clip only" in calibration.notes[0]


def test_labels_must_fit_and_missing_fp16_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "two.txt").write_text("left\nright\n")
    with pytest.raises(UsageError, match="holds 2 labels"):
        convert(tmp_path / "out", targets=["tflite", "coreml"], precisions=["fp16"], labels=str(tmp_path / "two.txt"))
    assert "No fp16 file is written for tflite" in caplog.text
    assert not (tmp_path / "out").exists()


def test_own_labels_are_kept_by_text_and_not_by_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomise(Fifo())
    (tmp_path / "moves.txt").write_text("\n".join(f"move {n}" for n in range(5)) + "\n")
    made = pipeline.convert(
        model, inputs=SHAPE, targets=["tflite"], out=tmp_path / "out", labels=str(tmp_path / "moves.txt")
    )
    ports = made.artifact("tflite", "fp32").ports
    assert (ports.labels, ports.class_names[-1]) == ("moves", "move 4")
    assert str(tmp_path) not in made.manifest.to_json()


def test_picture_port_of_an_own_model_takes_camera_bytes(build: tuple[Build, list[StageEvent]]) -> None:
    frame = build[0].artifact("tflite", "int8").ports.inputs[0]
    assert frame.dtype == "int8"
    assert frame.quantization is not None
    assert frame.quantization.zero_point == -128
    assert frame.quantization.scale == pytest.approx(1 / 255, rel=1e-6)


def test_int8_state_has_one_scale_and_its_reset_is_the_zero_point(build: tuple[Build, list[StageEvent]]) -> None:
    binding = build[0].artifact("tflite", "int8").ports.states[0]
    assert isinstance(binding.input.quantization, Quantization)
    assert binding.input.quantization == binding.output.quantization
    assert (binding.reset.array(binding.input) == binding.input.quantization.zero_point).all()


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    digests: list[dict[str, str]] = []
    for name in ("first", "second"):
        words = ["convert", "network:make", "--input", "1x3x16x16", "--precision", "fp32,fp16,int8", "--out", name]
        environment = {**os.environ, "PYTHONHASHSEED": str(len(digests) + 1)}
        command = [sys.executable, "-m", "mvtool", *words]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        made = Build.load(tmp_path / name)
        assert len(made.manifest.artifacts) == 7
        digests.append({a.file: sha256_of(made.path(a)) for a in made.manifest.artifacts})
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)], ids=str
)
def test_an_interrupted_conversion_leaves_the_previous_build(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    arguments = ["convert", "network:make", "--input", "1x3x16x16", "--target", "tflite", "--out", "kept"]
    command = [sys.executable, "-m", "mvtool", *arguments]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    before = sha256_of(tmp_path / "kept")
    with (
        interruptible_children(),
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if "emit start" in line:
                break
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.wait(timeout=60) == status, rest
    assert sha256_of(tmp_path / "kept") == before
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("__")) == ["kept", "network.py"]


def test_a_stage_that_takes_too_long_is_named(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(
        ConversionError, match=r"tflite fp32, stage \w+: took longer than 0 s.*--stage-timeout"
    ) as caught:
        convert(tmp_path / "late", targets=["tflite"], stage_timeout_s=0.2)
    assert "Nothing was written" in str(caught.value)
    assert not (tmp_path / "late").exists()
    assert time.monotonic() - began < 120


def test_a_folder_that_is_no_build_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match="not a build folder"):
        convert(tmp_path / "photos", targets=["tflite"])
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"dear"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ["onnx"]}, "Unknown target 'onnx'; known: tflite, coreml, executorch"),
        ({"precisions": ["int4"]}, "Unknown precision 'int4'; known: fp32, fp16, int8, int8-dynamic, int8-weights"),
        ({"targets": ["tflite"], "precisions": ["fp16"]}, "No fp16 file is written for tflite"),
        ({"calibration": "clips"}, "--calibration is for int8"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        convert(tmp_path / "none", **options)


def test_a_model_without_shapes_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--input"):
        pipeline.convert(Fifo(), out=tmp_path / "none", targets=["tflite"])


def test_a_missing_extra_is_found_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mvtool\[tflite\]'"):
        convert(tmp_path / "none", targets=["tflite"])


def failure(error: str | None, target: Runtime = Runtime.TFLITE) -> JobFailure:
    return JobFailure(Job(kind="emit", program="", target=target, precision=Precision.FP32), "emit", "no", error)


def test_failures_keep_their_class_where_they_agree(tmp_path: Path) -> None:
    def kind(*names: str | None) -> type[MvtoolError]:
        return type(pipeline._error_of({str(i): failure(n) for i, n in enumerate(names)}, tmp_path))

    assert kind("CaptureError") is CaptureError
    assert kind("StorageError") is StorageError
    assert kind("CaptureError", None) is ConversionError
    assert kind(None) is ConversionError
    text = str(pipeline._error_of({"a": failure(None), "b": failure(None, Runtime.COREML)}, tmp_path))
    assert "2 of the conversion's jobs failed" in text
    assert "tflite fp32, stage emit: no" in text
    assert f"did succeed are in {tmp_path}" in text


def test_a_disk_that_takes_no_more_is_told_as_such(tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk: also root can be made to feel it."""
    (tmp_path / "network.py").write_text(NETWORK)
    words = ["convert", "network:make", "--input", "1x3x16x16", "--target", "tflite", "--out", "out"]
    result = subprocess.run(
        [sys.executable, "-m", "mvtool", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST, SMALLEST)),
    )
    assert result.returncode == StorageError.exit_code, result.stderr
    assert "could not be read or written: File too large. Raise the limit" in result.stderr
    assert "defect" not in result.stderr
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("__")] == ["network.py"]


class OneFails(Supervisor):
    """Gives the Core ML job a program that is not there."""

    def run(self, jobs: Mapping[str, Job], needs: Mapping[str, str]) -> dict[str, Outcome]:
        broken = {"coreml_fp32": jobs["coreml_fp32"].model_copy(update={"program": "no/such/program"})}
        return super().run({**jobs, **broken}, needs)


def test_what_could_not_be_written_is_missed_by_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "Supervisor", OneFails)
    with pytest.raises(MvtoolError, match=r"(?s)coreml fp32, stage load.*no/such/program.*did succeed are in"):
        convert(tmp_path / "part", targets=["tflite", "coreml"])
    made = Build.load(tmp_path / "part")
    assert [(a.runtime, a.precision) for a in made.manifest.artifacts] == [(Runtime.TFLITE, Precision.FP32)]
    assert [(m.runtime, m.precision) for m in made.manifest.missing] == [(Runtime.COREML, Precision.FP32)]
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(made.folder)])
    assert end.value.code == VerificationError.exit_code


def test_public_schema_names_every_port(build: tuple[Build, list[StageEvent]]) -> None:
    manifest = json.loads((build[0].folder / "manifest.json").read_text())
    assert manifest["schema"] == "mvtool.build/1"
    ports = manifest["artifacts"][0]["ports"]
    assert ports["schema"] == "mvtool.ports/1"
    assert str(Path.cwd()) not in json.dumps(manifest)
    assert os.environ.get("HOME", "/nonexistent") + "/" not in json.dumps(manifest)
