from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from mvtool.android_bench.benchmark_model import PROGRAM, RESULT, command, parse, run_in
from mvtool.bench.cross_check import LABEL, CrossCheck, Format, MemoryCounter, Timings
from mvtool.errors import RunnerError

OUTPUTS = Path(__file__).parent / "benchmark_model_output"
NAMES = sorted(path.stem for path in OUTPUTS.glob("*.txt"))


def output(name: str) -> str:
    return (OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")


def kib(**kibibytes: int) -> dict[MemoryCounter, int]:
    return {MemoryCounter[name]: value * 1024 for name, value in kibibytes.items()}


def test_text_of_2019() -> None:
    check = parse(output("text_2019"))
    assert check == CrossCheck(
        format=Format.TEXT_2019,
        init_ms=9.933,
        first_ms=127.425,
        warmup=Timings(runs=7, avg_ms=76.6059, first_ms=127.425, min_ms=66.709, max_ms=127.425, std_ms=20.944),
        inference=Timings(runs=15, avg_ms=66.7676, first_ms=66.753, min_ms=66.699, max_ms=66.838, std_ms=0.039),
        unconsumed_flags=(),
    )
    assert check.label == LABEL


def test_a_later_text_of_2019_names_the_measured_runs_inference() -> None:
    text = output("text_2019").replace("no stats: 66767.6", "Inference: 66767.6")
    assert parse(text) == parse(output("text_2019"))


def test_text_of_2020_and_its_profile_which_has_count_lines_too() -> None:
    check = parse(output("text_2020"))
    assert (check.format, check.init_ms, check.first_ms) == (Format.TEXT_2020, 0.855, 49.06)
    assert check.inference == Timings(
        runs=50, avg_ms=33.2094, first_ms=32.891, min_ms=32.641, max_ms=34.005, std_ms=0.45
    )
    # 12.8672 MB are 13176.01 KiB, printed with six digits.
    assert check.memory_bytes == kib(INIT=0, OVERALL=13176)


def test_text_since_2021_with_exponents_and_flags_that_were_not_known() -> None:
    check = parse(output("text_2021"))
    assert check.format == Format.TEXT_2021
    assert check.warmup == Timings(runs=1, avg_ms=3512.5, first_ms=3512.5, min_ms=3512.5, max_ms=3512.5, std_ms=0)
    assert check.inference.avg_ms == 2950.34
    assert check.memory_bytes == kib(INIT=4352, OVERALL=47616)
    assert check.unconsumed_flags == ("--allow_fp16", "--result_file_path=benchmark_model.pb")


def test_text_since_2021_with_its_peak() -> None:
    check = parse(output("text_2021_memory"))
    assert check.format == Format.TEXT_2021
    assert check.inference == Timings(
        runs=74, avg_ms=13.5202, first_ms=14.85, min_ms=13.105, max_ms=15.765, std_ms=0.47
    )
    # 20.543 * 1024 = 21036.03, 25.0508 * 1024 = 25652.02.
    assert check.memory_bytes == kib(
        INIT=2496, OVERALL=21036, PEAK=25652, RSS=25 * 1024, RSS_PRIVATE=18 * 1024, RSS_SHARED=7 * 1024
    )


def test_the_prefix_alone_tells_the_text_since_2021() -> None:
    lines = output("text_2021_memory").splitlines()
    timings = "\n".join(line for line in lines if "count=" in line or "timings" in line)
    assert parse(timings).format == Format.TEXT_2021
    assert parse(timings.replace("INFO: ", "")).format == Format.TEXT_2020


def test_logcat_and_percentiles() -> None:
    check = parse(output("logcat"))
    assert check.inference == Timings(
        runs=20,
        avg_ms=125.5,
        first_ms=128,
        min_ms=120,
        max_ms=150,
        std_ms=8,
        p5_ms=120,
        median_ms=123,
        p95_ms=150,
    )
    assert check.warmup is not None
    assert (check.warmup.runs, check.first_ms, check.init_ms) == (4, 210, 84.5)
    assert check.memory_bytes == kib(INIT=55552, OVERALL=75264)


def test_all_values_the_same() -> None:
    check = parse(output("all_same"))
    values = dict.fromkeys(("avg_ms", "first_ms", "min_ms", "max_ms", "p5_ms", "median_ms", "p95_ms"), 0.006)
    assert check.inference == Timings(runs=4096, std_ms=0, **values)


def test_text_of_the_compiled_model_tool() -> None:
    check = parse(output("litert"))
    assert (check.format, check.init_ms, check.first_ms) == (Format.LITERT, 5.76, 2.12)
    # The tool's `count=` lines hold more digits than its summary.
    assert check.inference == Timings(
        runs=1000,
        avg_ms=0.9505,
        first_ms=1.015,
        min_ms=0.91,
        max_ms=1.102,
        std_ms=0.023,
        p5_ms=0.915,
        median_ms=0.942,
        p95_ms=0.991,
    )
    assert check.memory_bytes == kib(INIT=4352, OVERALL=7680, PEAK=11264)
    assert check.unconsumed_flags == ("--use_xnnpack=true",)


def test_summary_of_the_compiled_model_tool_alone() -> None:
    check = parse(output("litert_summary"))
    assert check.warmup == Timings(runs=9, avg_ms=58.98, first_ms=81.91)
    assert check.inference == Timings(runs=14, avg_ms=71.45, min_ms=70.25, max_ms=75.5, std_ms=1.25)


def test_no_warm_up() -> None:
    text = output("all_same").replace("count=2048 curr=7(all same) p5=7 median=7 p95=7", "count=0 p5=0 median=0 p95=0")
    check = parse(text.replace("First inference: 7, Warmup (avg): 7", "First inference: 0, Warmup (avg): 0"))
    assert check.warmup is None
    assert check.first_ms is None
    assert check.inference.runs == 4096


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Inference timings in us", "Timings in us", "it has no summary"),
        ("avg=33209.4", "avg=33309.4", "average 33.3094 ms in their own line and 33.2094 ms"),
        ("min=32641", "min=42641", "is above"),
        ("count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450", "count=0", "dry run"),
        ("curr=33682 min=32825 max=49060 avg=34825.1 std=3930", "curr=33682", "is not complete"),
        ("Init: 855", "Init: 1.2.3", "is no number"),
        ("Init: 855", "Init: 1e999", "is out of range"),
        ("overall=12.8672", "overall=1e300", "is out of range"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused(old: str, new: str, reason: str) -> None:
    text = output("text_2020")
    assert text.count(old) == 1
    with pytest.raises(RunnerError, match=reason) as caught:
        parse(text.replace(old, new))
    assert "Expected the whole text of one run" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_in_one_text_are_refused(name: str) -> None:
    with pytest.raises(RunnerError, match="several runs"):
        parse(output(name) * 2)


def test_the_tool_of_tensorflow_itself_is_another_tool() -> None:
    text = (
        "count=65 first=1 curr=1 min=1 max=2 avg=1 std=1\nAverage inference timings in us: Warmup: 169371, no stats: 1"
    )
    with pytest.raises(RunnerError, match="no summary"):
        parse(text)


def key(field: int, wire_type: int) -> bytes:
    return bytes([field << 3 | wire_type])


def single(field: int, value: float) -> bytes:
    return key(field, 5) + struct.pack("<f", value)


def varint(field: int, value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded, value = encoded + bytes([value & 0x7F | 0x80]), value >> 7
    return key(field, 0) + encoded + bytes([value])


def nested(field: int, content: bytes) -> bytes:
    assert len(content) < 128
    return key(field, 2) + bytes([len(content)]) + content


LATENCY = b"".join(
    single(field, value)
    for field, value in enumerate((13.5202, 13.105, 15.765, 0.47, 13.4, 13.2, 14.6, 12.75, 14.744, 13.7643), start=1)
)
MEMORY = varint(1, 2496) + varint(2, 21036) + single(3, 25.5)
MISC = single(1, 3.3) + varint(2, 74) + varint(3, 37) + single(4, 197.0)
RESULT_FILE = nested(1, b"own name") + nested(2, LATENCY) + nested(3, MEMORY) + nested(4, MISC)


def test_result_file() -> None:
    check = parse(RESULT_FILE)
    assert check == CrossCheck(
        format=Format.PROTOBUF,
        init_ms=12.75,
        first_ms=14.744,
        warmup=Timings(runs=37, avg_ms=13.7643, first_ms=14.744),
        inference=Timings(
            runs=74, avg_ms=13.5202, min_ms=13.105, max_ms=15.765, std_ms=0.47, median_ms=13.4, p5_ms=13.2, p95_ms=14.6
        ),
        memory_bytes=kib(INIT=2496, OVERALL=21036, PEAK=26112),
        unconsumed_flags=None,
    )


def test_fields_of_a_later_result_file_are_skipped() -> None:
    later = varint(15, 300) + key(14, 1) + bytes(8) + nested(13, b"new") + single(12, 1.0)
    assert parse(later + RESULT_FILE + later) == parse(RESULT_FILE)
    inside = nested(2, LATENCY + single(11, 1.0)) + nested(4, MISC + varint(9, 1))
    assert parse(inside).inference == parse(RESULT_FILE).inference


@pytest.mark.parametrize("size", range(len(RESULT_FILE)))
def test_a_result_file_that_was_cut_off_is_refused(size: int) -> None:
    with pytest.raises(RunnerError, match="Expected a BenchmarkResult protobuf"):
        parse(RESULT_FILE[:size])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is missing"),
        (b"\0\0", "begins no field"),
        (key(1, 3), "wire type 3"),
        (b"\xff" * 12, "more than ten bytes"),
        (varint(2, 1), "field 2 is a number"),
        (nested(2, LATENCY) + nested(4, varint(2, 0)), "no measured run"),
        (nested(2, single(1, float("nan"))) + nested(4, MISC), "avg_ms is nan"),
        (nested(2, single(1, -1.0)) + nested(4, MISC), "avg_ms is -1.0"),
        (nested(2, varint(1, 1)) + nested(4, MISC), "avg_ms is no float"),
        (nested(2, single(1, 9.0) + single(2, 10.0)) + nested(4, MISC), "is above"),
        (nested(2, LATENCY) + nested(3, varint(1, 2**64 - 1)) + nested(4, MISC), "init_footprint_kb is no count"),
    ],
)
def test_a_file_that_is_no_result_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(RunnerError, match=reason):
        parse(data)


WORDS = ("count=", "avg=1e999", "nan", "-1", "9" * 5000, "(all same)", "\x00", "\n", "é", "INFO: ", "init=", "٣", " ")


def mutated_text(source: random.Random) -> str:
    text = output(source.choice(NAMES))
    for _ in range(source.randint(1, 4)):
        at, to = sorted(source.randint(0, len(text)) for _ in range(2))
        text = source.choice(
            [
                text[:at] + text[to:],
                text[:at] + source.choice(WORDS) + text[at:],
                text[:at] + source.choice(WORDS) + text[at + 1 :],
                text[:to] + text[at:to] + text[to:],
                text[:at] + chr(source.randint(32, 126)) + text[at + 1 :],
            ]
        )
    return text


def mutated_bytes(source: random.Random) -> bytes:
    data = bytearray(RESULT_FILE)
    for _ in range(source.randint(1, 4)):
        at, to = sorted(source.randint(0, len(data)) for _ in range(2))
        change = source.randint(0, 3)
        if change == 0:
            del data[at:to]
        elif change == 1:
            data[at:at] = source.randbytes(source.randint(1, 12))
        elif change == 2:
            data[at:at] = data[at:to]
        elif at < len(data):
            data[at] = source.randint(0, 255)
    return bytes(data)


def outcomes(mutate: object, rounds: int) -> tuple[int, int]:
    """Numbers of mutants that parsed and that were refused; any other exception ends the test."""
    source = random.Random(20_210_601)
    parsed = refused = 0
    assert callable(mutate)
    for _ in range(rounds):
        mutant = mutate(source)
        try:
            check = parse(mutant)
        except RunnerError:
            refused += 1
            continue
        # What is believed can be stored and read again.
        assert CrossCheck.model_validate_json(check.model_dump_json()) == check
        parsed += 1
    return parsed, refused


@pytest.mark.parametrize("mutate", [mutated_text, mutated_bytes])
def test_mutants_are_parsed_or_refused_and_never_crash(mutate: object) -> None:
    parsed, refused = outcomes(mutate, rounds=3000)
    # Both happen often, or the mutations would be too wild or too tame.
    assert parsed > 100
    assert refused > 100


def test_command() -> None:
    assert command("/data/local/tmp/b", "m.tflite", 4, 100, peak_memory=True) == [
        "/data/local/tmp/b",
        "--graph=m.tflite",
        "--num_threads=4",
        "--num_runs=100",
        "--warmup_runs=1",
        "--min_secs=1",
        "--max_secs=150",
        "--report_peak_memory_footprint=true",
        "--result_file_path=benchmark_model.pb",
    ]
    assert command("b", "m.tflite", result=None)[-1] == "--max_secs=150"


class Folder:
    """A workspace in memory; the tool in it prints `text` and writes `result`."""

    def __init__(self, text: str, result: bytes | None) -> None:
        self.files: dict[str, bytes] = {RESULT: b"of an earlier run"}
        self.text = text
        self.result = result
        self.executed: list[tuple[str, tuple[str, ...], dict[str, str], float]] = []

    def put(self, source: Path, name: str, executable: bool = False) -> None:
        assert executable == (name == PROGRAM)
        self.files[name] = source.read_bytes()

    def execute(self, program: str, arguments: tuple[str, ...], environment: dict[str, str], timeout_s: float) -> str:
        assert {program, "m.tflite"} <= set(self.files)
        self.executed.append((program, arguments, environment, timeout_s))
        if self.result is not None:
            self.files[RESULT] = self.result
        return self.text

    def get(self, name: str) -> bytes:
        if name not in self.files:
            raise RunnerError(f"there is no {name}")
        return self.files[name]

    def remove(self, name: str) -> None:
        self.files.pop(name, None)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    program, model = tmp_path / "android_aarch64_benchmark_model", tmp_path / "m.tflite"
    program.write_bytes(b"tool")
    model.write_bytes(b"model")
    return program, model


def test_a_run_takes_the_figures_of_the_file_and_the_flags_of_the_text(inputs: tuple[Path, Path]) -> None:
    folder = Folder(output("litert"), RESULT_FILE)
    check = run_in(folder, *inputs, threads=2, runs=74, beside=(inputs[1],), max_seconds=30)
    assert check == parse(RESULT_FILE).model_copy(update={"threads": 2, "unconsumed_flags": ("--use_xnnpack=true",)})
    words = command(PROGRAM, "m.tflite", 2, 74, max_seconds=30)
    assert folder.executed == [(PROGRAM, tuple(words[1:]), {"LD_LIBRARY_PATH": "."}, 120)]


def test_a_run_of_a_tool_that_writes_no_file_takes_the_text(inputs: tuple[Path, Path]) -> None:
    check = run_in(Folder(output("text_2021"), None), *inputs)
    assert check == parse(output("text_2021")).model_copy(update={"threads": 1})


def test_a_run_whose_text_went_to_logcat_does_not_know_the_flags(inputs: tuple[Path, Path]) -> None:
    check = run_in(Folder("", RESULT_FILE), *inputs)
    assert (check.format, check.unconsumed_flags) == (Format.PROTOBUF, None)


@pytest.mark.parametrize(
    ("text", "result"), [("Killed", None), (output("text_2021"), RESULT_FILE[:-3])], ids=["no file", "cut off"]
)
def test_a_run_without_a_whole_result_is_refused(inputs: tuple[Path, Path], text: str, result: bytes | None) -> None:
    with pytest.raises(RunnerError, match="cannot be used"):
        run_in(Folder(text, result), *inputs)
