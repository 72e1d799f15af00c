"""What another tool measured on the same file and device, beside a record of mvtool.

Google's `benchmark_model` is what most published latencies of `.tflite` files were made with, so its figures are kept
where it was run. It answers a smaller question than mvtool's runner, and `LABEL` says so in every place that shows
one: each invoke starts from the same random inputs, so the loop of a streaming model is not measured.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from mvtool.ports import Document

LABEL: Final = (
    "cross-check, not the instrument: random inputs, no state carried from call to call, "
    "memory from ru_maxrss including the tool"
)

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_SLACK_MS = 0.011
"""The CompiledModel tool rounds to 0.01 ms, so an average may be printed just outside its extremes."""
_SLACK = 1e-4
"""The other texts hold six digits."""


class Format(StrEnum):
    """Generation of the output that was parsed; the dates are those of the first logs that show it.

    `TEXT_2020` is a text with the summary of 2020 and nothing that only later ones print.
    """

    TEXT_2019 = "text of 2019"
    TEXT_2020 = "text of 2020"
    TEXT_2021 = "text since 2021"
    LITERT = "text of the CompiledModel tool"
    PROTOBUF = "BenchmarkResult protobuf"


class MemoryCounter(StrEnum):
    """What a memory figure of the tool is, on Linux and Android (`profiling/memory_info.cc` of TFLite).

    `ru_maxrss` never falls, and a process inherits it from the one that started it, so a growth of 0 says nothing.

    Attributes:
        INIT: Growth of `ru_maxrss` from the start of the tool to the end of initialisation.
        OVERALL: Growth of `ru_maxrss` from the start of the tool to the end of the runs.
        PEAK: Highest `ru_maxrss`, sampled by a thread of the tool.
        RSS: `VmRSS` at the end, in whole MiB.
        RSS_PRIVATE: The part of it that the tool calls `RssAnnon`.
        RSS_SHARED: The part that is files and shared memory.
    """

    INIT = "ru_maxrss_growth_init"
    OVERALL = "ru_maxrss_growth_overall"
    PEAK = "ru_maxrss_sampled_peak"
    RSS = "vm_rss_end"
    RSS_PRIVATE = "vm_rss_end_private"
    RSS_SHARED = "vm_rss_end_shared"


class Timings(Document):
    """Wall time of a series of invokes, as far as the tool tells.

    Attributes:
        runs: Number of invokes.
        avg_ms: Mean.
        first_ms: First of the series.
        min_ms: Shortest.
        max_ms: Longest.
        std_ms: Population standard deviation; the texts round it down to whole microseconds.
        p5_ms: 5th percentile.
        median_ms: Median, the upper one of two.
        p95_ms: 95th percentile.
    """

    runs: int | None = Field(default=None, ge=1)
    avg_ms: Milliseconds
    first_ms: Milliseconds | None = None
    min_ms: Milliseconds | None = None
    max_ms: Milliseconds | None = None
    std_ms: Milliseconds | None = None
    p5_ms: Milliseconds | None = None
    median_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Timings:
        for chain in (("min_ms", "avg_ms", "max_ms"), ("min_ms", "p5_ms", "median_ms", "p95_ms", "max_ms")):
            known = [(name, value) for name in chain if (value := getattr(self, name)) is not None]
            for (low_name, low), (high_name, high) in pairwise(known):
                if low > high * (1 + _SLACK) + _SLACK_MS:
                    raise ValueError(f"{low_name} {low:g} is above {high_name} {high:g}")
        return self


class CrossCheck(Document):
    """One run of Google's `benchmark_model`.

    Attributes:
        label: Always `LABEL`.
        tool: Name of the program.
        format: Which output was parsed.
        threads: Threads it was told to use; None where only its output is known.
        init_ms: Loading the model, delegates included.
        first_ms: First invoke of all, which is the first one of the warm-up.
        warmup: Invokes before the measured ones, the first one included.
        inference: The measured invokes.
        memory_bytes: Counter to its figure.
        unconsumed_flags: Flags that this build of the tool does not know and went on without; None where its
            text, which would name them, is missing.
    """

    label: Literal[
        "cross-check, not the instrument: random inputs, no state carried from call to call, "
        "memory from ru_maxrss including the tool"
    ] = LABEL
    tool: Literal["benchmark_model"] = "benchmark_model"
    format: Format
    threads: int | None = Field(default=None, ge=1)
    init_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    warmup: Timings | None = None
    inference: Timings
    memory_bytes: dict[MemoryCounter, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    unconsumed_flags: tuple[str, ...] | None = None
