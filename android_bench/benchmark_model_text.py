"""The texts that Google's `benchmark_model` prints, in the four generations that public logs show.

    2019          count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944
                  Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
    2020          Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
                  Peak memory footprint (MB): init=0 overall=12.8672
    since 2021    Memory footprint delta from the start of the tool (MB): init=2.4375 overall=20.543
    CompiledModel Inference (avg):      71.45 ms (14 runs)

Every generation prints one `count=` line for the warm-up and one for the measured runs, in microseconds. If all values
are the same, it is `count=N curr=V(all same)`, and newer builds add ` p5= median= p95=` (`OutputToStream` in
`tsl/util/stats_calculator.h`). Lines may begin with `INFO: `, with a place in the source in brackets, and with what
`adb logcat` puts before them. "MB" are 2**20 bytes. Source: `tools/benchmark/benchmark_model.cc` of TFLite and
`litert/tools/benchmark_litert_model.h` of LiteRT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from mvtool.bench.cross_check import CrossCheck, Format, MemoryCounter, Timings
from mvtool.errors import RunnerError

_NUMBER = r"([0-9.]{1,24}(?:[eE][-+]?[0-9]{1,3})?)"
_LARGEST = 1e15
"""In the units of the texts: microseconds, milliseconds or MiB. Above it something is no number of this tool."""

# `threadtime` (05-30 11:42:13.947 8123 8123 I tflite  : ), `brief` (I/tflite  ( 8123): ) and a bare tag.
_LOGCAT = r"(?:\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\s+\d+\s+\d+\s+)?[VDIWEF][ /](?P<tag>[^\s:(]+)\s*(?:\(\s*\d+\))?\s*: "
_PREFIX = re.compile(rf"\s*(?:{_LOGCAT})?(?:(?:INFO|WARN|WARNING|ERROR|VERBOSE): )?(?:\[[^\]]*:\d+\] )?")

_AVERAGES_2019 = re.compile(
    rf"Average inference timings in us: Warmup: {_NUMBER}, Init: {_NUMBER}, (?:no stats|Inference): {_NUMBER}\b"
)
_AVERAGES = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}$"
)
_COUNT = re.compile(r"count=(\d{1,15})\b(.*)$")
_STATISTIC = re.compile(rf"\b(\w+)={_NUMBER}")
_UNCONSUMED = re.compile(r"Unconsumed cmdline flags: *(.*\S)")
_LITERT = re.compile(rf"([A-Z][a-z]+(?: (?:\(\w+\)|[a-z]+))?):\s+{_NUMBER}(?: ms| MB)?(?: \((\d{{1,15}}) runs\))?$")

_INIT_AND_OVERALL = rf"init={_NUMBER} overall={_NUMBER}$"
_MEMORY = (
    (re.compile(rf"Peak memory footprint \(MB\): {_INIT_AND_OVERALL}"), (MemoryCounter.INIT, MemoryCounter.OVERALL)),
    (
        re.compile(rf"Memory footprint delta from the start of the tool \(MB\): {_INIT_AND_OVERALL}"),
        (MemoryCounter.INIT, MemoryCounter.OVERALL),
    ),
    (
        re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}$"),
        (MemoryCounter.PEAK,),
    ),
    (re.compile(rf"- VmRSS +: {_NUMBER} MB$"), (MemoryCounter.RSS,)),
    (re.compile(rf"\+ RssAnnon +: {_NUMBER} MB$"), (MemoryCounter.RSS_PRIVATE,)),
    (re.compile(rf"\+ RssFile \+ RssShmem : {_NUMBER} MB$"), (MemoryCounter.RSS_SHARED,)),
)
_LITERT_MEMORY = {
    "Init footprint": MemoryCounter.INIT,
    "Overall footprint": MemoryCounter.OVERALL,
    "Peak memory": MemoryCounter.PEAK,
}

Figures = dict[str, tuple[float, int | None]]
"""Name of a figure of the CompiledModel tool to its value and number of runs."""

_EXPECTED = (
    "Expected the whole text of one run: a line `Inference timings in us: Init: ...`, the older `Average inference "
    "timings in us: ...`, or `Inference (avg): ... ms (N runs)`. On a phone the text may be in logcat instead (tag "
    "tflite or litert); --result_file_path=FILE gives the same figures as a file."
)


@dataclass(frozen=True)
class _Averages:
    """The closing summary in milliseconds; `tolerance_ms` is half a unit of its last digit, and some."""

    format: Format
    init_ms: float
    first_ms: float | None
    warmup_ms: float
    inference_ms: float
    tolerance_ms: float


def parse_text(text: str) -> CrossCheck:
    """Parse what one run of the tool printed.

    Raises:
        RunnerError: It is not the whole text of one run, or its numbers contradict each other.
    """
    lines = [_bare(line) for line in text.splitlines()]
    litert = _litert_figures(lines)
    averages = _averages(lines, litert, text)
    warmup, inference = _series(lines, averages, litert)
    flags = [flag for line in lines if (found := _UNCONSUMED.match(line)) for flag in found[1].split()]
    try:
        return CrossCheck(
            format=averages.format,
            init_ms=averages.init_ms,
            first_ms=None
            if warmup is None
            else averages.first_ms
            if averages.first_ms is not None
            else warmup.first_ms,
            warmup=warmup,
            inference=inference,
            memory_bytes=_memory(lines, litert),
            unconsumed_flags=tuple(flags),
        )
    except ValidationError as error:
        raise _refused(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _bare(line: str) -> str:
    """The line without what is put before it; empty where logcat says that another program wrote it."""
    prefix = _PREFIX.match(line)
    if prefix is None or prefix["tag"] not in (None, "tflite", "litert"):
        return ""
    return line[prefix.end() :].strip()


def _first(warmup: Timings | None, averages: _Averages) -> float | None:
    """The first invoke of all; the tool prints 0 for it where there was no warm-up."""
    if warmup is None:
        return None
    return warmup.first_ms if averages.first_ms is None else averages.first_ms


def _refused(reason: str) -> RunnerError:
    return RunnerError(f"The output of benchmark_model cannot be used: {reason}. {_EXPECTED}")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _refused(f"{text!r} is no number") from None
    if not math.isfinite(value) or value > _LARGEST:
        raise _refused(f"{text!r} is out of range")
    return value


def _milliseconds(microseconds: str) -> float:
    """The text's own digits, without those that a division would add."""
    return round(_number(microseconds) / 1000, 9)


def _litert_figures(lines: Sequence[str]) -> Figures:
    """Figures of the CompiledModel tool; empty for the other tool."""
    matches = [found for line in lines if (found := _LITERT.match(line))]
    names = [found[1] for found in matches]
    if "Inference (avg)" not in names:
        return {}
    if names.count("Inference (avg)") > 1:
        raise _refused("it holds several runs")
    return {found[1]: (_number(found[2]), int(found[3]) if found[3] else None) for found in matches}


def _averages(lines: Sequence[str], litert: Figures, text: str) -> _Averages:
    summaries = [found for line in lines if (found := _AVERAGES.match(line))]
    older = [found for line in lines if (found := _AVERAGES_2019.match(line))]
    if len(summaries) + len(older) + bool(litert) != 1:
        raise _refused("it holds several runs" if summaries or older else "it has no summary")
    if litert:
        needed = ("Model initialization", "Warmup (first)", "Warmup (avg)", "Inference (avg)")
        missing = [name for name in needed if name not in litert]
        if missing:
            raise _refused(f"the line {missing[0]!r} is missing")
        init, first, warmup, inference = (litert[name][0] for name in needed)
        return _Averages(Format.LITERT, init, first, warmup, inference, 0.0051)
    if older:
        warmup, init, inference = (_milliseconds(word) for word in older[0].groups())
        return _Averages(Format.TEXT_2019, init, None, warmup, inference, 0.0011)
    init, first, warmup, inference = (_milliseconds(word) for word in summaries[0].groups())
    return _Averages(_generation(lines, text), init, first, warmup, inference, 0.0011)


def _generation(lines: Sequence[str], text: str) -> Format:
    """TensorFlow Lite 2.16 put `INFO: ` before its own lines; the runtime's lines had it before."""
    newer = (
        "INFO: Inference timings" in text
        or any(pattern.match(line) for pattern, _ in _MEMORY[1:] for line in lines)
        or any(found and " p95=" in found[2] for found in map(_COUNT.match, lines))
    )
    return Format.TEXT_2021 if newer else Format.TEXT_2020


def _series(lines: Sequence[str], averages: _Averages, litert: Figures) -> tuple[Timings | None, Timings]:
    """Warm-up and measured runs; the text's own averages must belong to them."""
    counted = [_timings(int(found[1]), found[2]) for line in lines if (found := _COUNT.match(line))]
    if len(counted) > 2:
        raise _refused(f"it has {len(counted)} lines `count=`, which is more than one run prints")
    if not counted:
        warmup, inference = _from_litert("Warmup", litert), _from_litert("Inference", litert)
        return (
            warmup or Timings(avg_ms=averages.warmup_ms, first_ms=averages.first_ms),
            inference or Timings(avg_ms=averages.inference_ms),
        )
    measured = counted[-1]
    if measured is None:
        raise _refused("no invoke was measured (`count=0`, as a dry run prints)")
    _same(measured, averages.inference_ms, averages.tolerance_ms, "measured")
    if len(counted) == 1:
        return Timings(avg_ms=averages.warmup_ms, first_ms=averages.first_ms), measured
    if counted[0] is not None:
        _same(counted[0], averages.warmup_ms, averages.tolerance_ms, "warm-up")
    return counted[0], measured


def _same(timings: Timings, average_ms: float, tolerance_ms: float, which: str) -> None:
    if abs(timings.avg_ms - average_ms) > tolerance_ms + 1e-5 * average_ms:
        raise _refused(
            f"the {which} runs average {timings.avg_ms:g} ms in their own line and {average_ms:g} ms in the summary"
        )


def _timings(count: int, rest: str) -> Timings | None:
    """One `count=` line; None for `count=0`."""
    if count == 0:
        return None
    values = {name: _milliseconds(word) for name, word in _STATISTIC.findall(rest)}
    if "avg" not in values:
        if "curr" not in values or not (count == 1 or "(all same)" in rest):
            raise _refused(f"the line `count={count}{rest}` is not complete")
        values = {**dict.fromkeys(("first", "min", "max", "avg"), values["curr"]), "std": 0.0, **values}
    names = ("avg", "first", "min", "max", "std", "p5", "median", "p95")
    try:
        return Timings(runs=count, **{f"{name}_ms": values[name] for name in names if name in values})
    except ValidationError as error:
        raise _refused(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _from_litert(series: str, figures: Figures) -> Timings | None:
    if f"{series} (avg)" not in figures:
        return None
    average, runs = figures[f"{series} (avg)"]
    values = {
        f"{name}_ms": figures[f"{series} ({name})"][0]
        for name in ("first", "min", "max", "std")
        if f"{series} ({name})" in figures
    }
    try:
        return Timings(runs=runs, avg_ms=average, **values)
    except ValidationError as error:
        raise _refused(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _memory(lines: Sequence[str], litert: Figures) -> dict[MemoryCounter, int]:
    """Counter to bytes; the tool divides kilobytes by 1024, so the kilobytes are restored."""
    found = {_LITERT_MEMORY[name]: value for name, (value, _) in litert.items() if name in _LITERT_MEMORY}
    for pattern, counters in _MEMORY:
        for line in lines:
            if match := pattern.match(line):
                found.update(zip(counters, map(_number, match.groups()), strict=True))
    return {counter: round(mebibytes * 1024) * 1024 for counter, mebibytes in found.items()}
