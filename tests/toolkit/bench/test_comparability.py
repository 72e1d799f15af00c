from __future__ import annotations

from typing import Any

import pytest
from bench_records import HOST, LOOPBACK, PHONE, record

from mvtool.bench.comparability import ALLOWED_WORDS, ASPECTS, check
from mvtool.bench.comparison import compare
from mvtool.bench.record import Record
from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime


def edited(found: Record, part: str, **fields: Any) -> Record:
    return found.model_copy(update={part: getattr(found, part).model_copy(update=fields)})


BASE = record()
NEW = record(artifact="b", seed=1)
DIFFERENT = {
    "model": (record(model="x3d_s"), "base movinet_a0_stream, new x3d_s"),
    "runtime": (record(runtime=Runtime.EXECUTORCH), "base tflite, new executorch"),
    "precision": (record(precision=Precision.INT8), "base fp32, new int8"),
    "device": (record(device=PHONE), "new android Google Pixel 8 Tensor G3"),
    "serial": (edited(NEW, "device", serial="bench-2"), "base …ch-1, new …ch-2"),
    "build": (edited(NEW, "device", build="6.1.0-20-amd64"), "6.1.0-20-amd64"),
    "api": (edited(NEW, "engine", api="TfLite"), "base LiteRt, new TfLite"),
    "library": (edited(NEW, "engine", library_version="2.2.0"), "base libLiteRt.so 2.3.0, new libLiteRt.so 2.2.0"),
    "delegate": (edited(NEW, "engine", delegate="none"), "base XNNPACK, new none"),
    "threads": (record(threads=4), "base 1, new 4"),
    "affinity": (edited(NEW, "engine", affinity="f0"), "base none, new f0"),
    "pacing": (record(fps=30), "base flat out, new 30 fps"),
    "profile": (record(profile="quick"), "base default, new quick"),
    "frames": (edited(NEW, "options", video="running.mp4"), "new 50 of running.mp4, 1 per call"),
}


@pytest.mark.parametrize("aspect", DIFFERENT)
def test_what_must_be_equal(aspect: str) -> None:
    new, told = DIFFERENT[aspect]
    with pytest.raises(UsageError) as refusal:
        check([BASE], [new])
    assert f"{aspect}: base" in str(refusal.value)
    assert told in str(refusal.value)
    assert "--allow " in str(refusal.value)
    notes = check([BASE], [new], [aspect])
    assert any(note.startswith(f"Different {aspect}: ") for note in notes)


def test_every_aspect_is_tested_here() -> None:
    assert {*DIFFERENT, "loopback"} == set(ASPECTS)


def test_the_remedy_that_is_printed_works() -> None:
    new = edited(edited(NEW, "engine", threads=4, delegate="none"), "options", fps=10.0)
    with pytest.raises(UsageError) as refusal:
        check([BASE], [new])
    words = str(refusal.value).rsplit("--allow ", 1)[1].rstrip(".").split(",")
    assert set(words) == {"threads", "delegate", "pacing"}
    assert compare([BASE], [new], allow=words).metrics


def test_frames_per_call_belong_to_the_frames() -> None:
    with pytest.raises(
        UsageError, match=r"frames: base 50 of walking.mp4, 1 per call, new 50 of walking.mp4, 8 per call"
    ):
        check([BASE], [record(frames_per_call=8)])


@pytest.mark.parametrize("stand_in", [LOOPBACK, HOST.model_copy(update={"emulated": True})])
def test_no_real_device(stand_in: Any) -> None:
    base, new = record(device=stand_in), record(device=stand_in, artifact="b")
    with pytest.raises(UsageError, match=r"of no real device .*--allow loopback"):
        check([base], [new])
    assert check([base], [new], ["loopback"]) == ()


def test_a_stand_in_against_a_phone() -> None:
    with pytest.raises(UsageError, match="loopback: base loopback, new real device"):
        check([record(device=LOOPBACK)], [record(device=PHONE)])
    assert check([record(device=LOOPBACK)], [record(device=PHONE)], ["loopback"])


def test_libraries_without_a_version_are_told_apart_by_their_hash() -> None:
    base, new = (
        edited(one, "engine", library_version=None, library_sha256=digit * 64)
        for one, digit in ((BASE, "1"), (NEW, "2"))
    )
    with pytest.raises(UsageError, match=r"library: base libLiteRt.so 1111"):
        check([base], [new])


def test_one_side_must_be_of_one_file() -> None:
    with pytest.raises(UsageError, match="new records are of 2 different artifacts"):
        check([BASE], [NEW, record(artifact="c")])


def test_one_side_must_agree_with_itself() -> None:
    with pytest.raises(UsageError, match="threads: base 1 and 2, new 1"):
        check([BASE, record(threads=2, seed=1)], [NEW])


def test_an_unknown_word() -> None:
    with pytest.raises(UsageError, match=r"--allow got 'color'; expected words of model, .*, missing"):
        check([BASE], [NEW], ["color"])
    assert "missing" in ALLOWED_WORDS


def test_the_artifact_and_the_samples_may_differ() -> None:
    assert check([BASE], [NEW]) == ()


def test_notes() -> None:
    engine = {"runner_sha256": "0" * 64, "state_loop": "copy", "memory_includes": ("libtorch",)}
    other = edited(edited(BASE, "engine", **engine), "options", max_temperature_c=35.0)
    same, runner, loop, memory, temperature = check([BASE], [other])
    assert same == "Both sides measured the same file."
    assert runner == "The runners are different builds."
    assert loop == "How states reach their inputs differs: base swap, new copy."
    assert memory.endswith("differs: base nothing more, new libtorch.")
    assert temperature.endswith("(--max-temperature) differs: base none, new 35 degrees Celsius.")


@pytest.mark.parametrize("fields", [{"cores": 16}, {"memory_bytes": 16 * 2**30}])
def test_other_processors_and_memory_are_another_device(fields: dict[str, int]) -> None:
    other = edited(NEW, "device", **fields)
    with pytest.raises(UsageError, match=r"device: base host .* 8 cores, 32 GiB, new .* --allow device\."):
        check([BASE], [other])
    assert check([BASE], [other], ["device"])


@pytest.mark.parametrize(
    ("left_gib", "sold"), [(7.4, "8"), (8, "8"), (11.2, "12"), (12.5, "16"), (1.4, "1.5"), (0.9, "1")]
)
def test_memory_is_that_which_is_sold(left_gib: float, sold: str) -> None:
    # What the kernel leaves of it changes with the system's version, which is an aspect of its own.
    assert ASPECTS["device"](edited(BASE, "device", memory_bytes=int(left_gib * 2**30))).endswith(f", {sold} GiB")


def test_two_phones_of_one_model() -> None:
    base, new = record(device=PHONE), record(device=PHONE.model_copy(update={"serial": "3A091FDJH009ZZ"}), artifact="b")
    with pytest.raises(UsageError, match=r"serial: base …01AB, new …09ZZ\. .*--allow serial"):
        check([base], [new])
    for word in ("serial", "device"):
        (note,) = check([base], [new], [word])
        assert note.startswith("Different serial: 2 devices")
        assert "3A09" not in note


def test_builds_of_a_library_with_one_version() -> None:
    other = edited(NEW, "engine", library_sha256="1" * 64)
    with pytest.raises(UsageError, match=r"library: base libLiteRt.so 2.3.0 \(\w{12}\), new .* \(111111111111\)"):
        check([BASE], [other])
    (note,) = check([BASE], [other], ["library"])
    assert note.startswith("Different library: ")
    # Where a side does not know its hash, the version is all there is.
    assert check([BASE], [edited(NEW, "engine", library_sha256=None)]) == ()


def test_a_library_is_another_file_for_another_instruction_set() -> None:
    phone = edited(record(device=PHONE, artifact="b"), "engine", library_sha256="1" * 64)
    notes = check([BASE], [phone], ["device"])
    assert not any(note.startswith("Different library") for note in notes)
