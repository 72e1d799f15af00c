"""The file that `benchmark_model --result_file_path=FILE` writes: a `BenchmarkResult` protobuf.

Its fields (`tools/benchmark/proto/benchmark_result.proto` of TFLite, proto2, all optional):

    BenchmarkResult  1 name, 2 latency_metrics, 3 memory_metrics, 4 misc_metrics
    LatencyMetrics   float  1 avg_ms 2 min_ms 3 max_ms 4 stddev_ms 5 median_ms 6 p5_ms 7 p95_ms 8 init_ms
                            9 first_inference_ms 10 average_warm_up_ms
    MemoryMetrics    int64  1 init_footprint_kb 2 overall_footprint_kb; float 3 peak_mem_mb
    MiscMetrics      float  1 model_size_mb; int32 2 num_runs 3 num_warmup_runs; float 4 throughput

The reader below knows the wire format alone (protobuf.dev/programming-guides/encoding), because the protobuf package
comes with an extra and the generated class with none. The tool sets the number of runs last, so a file without
it was cut off.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from mvtool.bench.cross_check import CrossCheck, Format, MemoryCounter, Timings
from mvtool.errors import RunnerError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_FIELD = 2**29 - 1
_LARGEST = 1e12
"""Of any figure, in milliseconds, KiB or MiB; above it the file is no result."""

Value = int | bytes


def parse_result(data: bytes) -> CrossCheck:
    """Parse the file; fields that are not listed above are skipped.

    Raises:
        RunnerError: It is cut off, is no such file, or holds no measured run.
    """
    message = dict(_fields(data))
    latency, memory, misc = (_message(message, field) for field in (2, 3, 4))
    runs, warmup_runs = _integer(misc, 2, "num_runs"), _integer(misc, 3, "num_warmup_runs")
    average_ms, warmup_ms = _float(latency, 1, "avg_ms"), _float(latency, 10, "average_warm_up_ms")
    if not runs or average_ms is None:
        raise _refused("it holds no measured run" if runs == 0 else "avg_ms or num_runs is missing")
    first_ms = _float(latency, 9, "first_inference_ms")
    warmed = warmup_runs != 0 and warmup_ms is not None
    try:
        return CrossCheck(
            format=Format.PROTOBUF,
            init_ms=_float(latency, 8, "init_ms"),
            first_ms=first_ms if warmed else None,
            warmup=Timings(runs=warmup_runs, avg_ms=warmup_ms or 0.0, first_ms=first_ms) if warmed else None,
            inference=Timings(runs=runs, avg_ms=average_ms, **_spread(latency)),
            memory_bytes=_memory(memory),
        )
    except ValidationError as error:
        raise _refused(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _refused(reason: str) -> RunnerError:
    return RunnerError(
        f"The result file of benchmark_model cannot be used: {reason}. Expected a BenchmarkResult protobuf with "
        "latency_metrics.avg_ms and misc_metrics.num_runs, as --result_file_path writes it. Run the tool again."
    )


def _spread(latency: Mapping[int, Value]) -> dict[str, float]:
    fields = {"min_ms": 2, "max_ms": 3, "std_ms": 4, "median_ms": 5, "p5_ms": 6, "p95_ms": 7}
    values = {name: _float(latency, field, name) for name, field in fields.items()}
    return {name: value for name, value in values.items() if value is not None}


def _memory(memory: Mapping[int, Value]) -> dict[MemoryCounter, int]:
    init, overall = _integer(memory, 1, "init_footprint_kb"), _integer(memory, 2, "overall_footprint_kb")
    peak = _float(memory, 3, "peak_mem_mb")
    kibibytes = {
        MemoryCounter.INIT: init,
        MemoryCounter.OVERALL: overall,
        MemoryCounter.PEAK: None if peak is None else round(peak * 1024),
    }
    return {counter: value * 1024 for counter, value in kibibytes.items() if value is not None}


def _message(fields: Mapping[int, Value], field: int) -> dict[int, Value]:
    value = fields.get(field, b"")
    if not isinstance(value, bytes):
        raise _refused(f"field {field} is a number where a message belongs")
    return dict(_fields(value))


def _integer(fields: Mapping[int, Value], field: int, name: str) -> int | None:
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or value > _LARGEST:
        raise _refused(f"{name} is no count")
    return value


def _float(fields: Mapping[int, Value], field: int, name: str) -> float | None:
    """A float of the message, with the seven digits that it holds."""
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) != 4:
        raise _refused(f"{name} is no float")
    number: float = struct.unpack("<f", value)[0]
    if not math.isfinite(number) or not 0 <= number <= _LARGEST:
        raise _refused(f"{name} is {number}")
    return float(f"{number:.7g}")


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of every field: an int for a varint, bytes for all others."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if not 1 <= field <= _LARGEST_FIELD:
            raise _refused(f"byte {at} begins no field")
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _refused(f"field {field} has the unknown wire type {kind}")
        if length > len(data) - at:
            raise _refused(f"it ends inside field {field}")
        yield field, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if at + index >= len(data):
            raise _refused("it ends inside a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _refused("a number in it has more than ten bytes")
