"""The result of one launch (`mvtool.run/1`), as the native runner writes it.

The runner writes the file under another name, ends it with a mark, and renames it; whoever reads it takes nothing
that does not parse, lacks the mark or holds an unknown key.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from mvtool.bench.record import Launch, MemoryMark, Place, Samples
from mvtool.errors import RunnerError
from mvtool.ports import Document

RUN_SCHEMA: Final = "mvtool.run/1"
END_MARK: Final = "mvtool.run/1 complete"


class RunnerFacts(Document):
    """The runner: `name` of the program, `version` of its sources, `compiler`, and the `abi` it was compiled for."""

    name: str
    version: str
    compiler: str
    abi: str


class LibraryFacts(Document):
    """The runtime library: `file` name, the `version` that it tells (None if it does not), and the `api` called."""

    file: str
    version: str | None
    api: Literal["LiteRt", "TfLite", "ExecuTorch"]


class DelegateFacts(Document):
    """What ran the graph.

    Attributes:
        name: `XNNPACK`, `none` for the runtime's own kernels, or `unknown` where the library tells neither.
        fully_accelerated: It took every operator; None where the runtime does not tell.
        evidence: What that is known from, in words.
    """

    name: str
    fully_accelerated: bool | None
    evidence: str


class CheckFacts(Document):
    """The dump for the correctness gate: number of `steps`, and its `file`."""

    steps: int
    file: str


class CountersInKilobytes(Document):
    """Counters of `/proc/self/status` in its unit, 1024 bytes.

    Attributes:
        vm_hwm_kb: Peak resident memory so far.
        vm_rss_kb: Resident memory now, the sum of the three below.
        vm_swap_kb: Swapped out now.
        rss_anon_kb: Heap and other memory of the process alone; None, as the next two, from a runner that does not tell.
        rss_file_kb: Pages of mapped files, which the system can take back without writing them.
        rss_shmem_kb: Shared memory.
    """

    vm_hwm_kb: int = Field(ge=0)
    vm_rss_kb: int = Field(ge=0)
    vm_swap_kb: int = Field(ge=0)
    rss_anon_kb: int | None = Field(default=None, ge=0)
    rss_file_kb: int | None = Field(default=None, ge=0)
    rss_shmem_kb: int | None = Field(default=None, ge=0)


class MarkInKilobytes(CountersInKilobytes):
    """What `record.MemoryMark` is made of, at one place of a launch."""

    at: Place


class CallsMark(CountersInKilobytes):
    """Counters after `calls` timed calls, where the plan asked for them."""

    calls: int = Field(ge=1)


class RunResult(Document):
    """What one launch measured; times in nanoseconds of `CLOCK_MONOTONIC`, columns as in `record.Samples`.

    Attributes:
        affinity: Mask that the process had while it was timed.
        marks: Memory after so many calls, as the plan asked for it.
        stopped: `complete`, or `time` where `MAX_SECONDS` of the plan ended the timed part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.run/1"] = Field(default=RUN_SCHEMA, alias="schema")
    runner: RunnerFacts
    library: LibraryFacts
    delegate: DelegateFacts
    threads: int
    affinity: str | None
    state_loop: Literal["swap", "alias", "copy"]
    library_ns: int
    load_ns: int
    reset_ns: int
    first_ns: int
    check: CheckFacts | None
    warmup_ns: tuple[int, ...]
    samples: Samples
    memory: tuple[MarkInKilobytes, ...]
    marks: tuple[CallsMark, ...] = ()
    memory_includes: tuple[str, ...]
    stopped: Literal["complete", "time"]
    end: Literal["mvtool.run/1 complete"]

    @model_validator(mode="after")
    def _whole(self) -> RunResult:
        # The record refuses the same; here it is still known which device the result came from.
        self.launch(0.0)
        return self

    @classmethod
    def parse(cls, text: bytes, origin: str) -> RunResult:
        """Parse a result; `origin` says in error messages where it came from.

        Raises:
            RunnerError: It is no complete result.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise RunnerError(
                f"The result of the runner on {origin} is not complete: {where}: {first['msg']} ({len(text)} bytes, it must "
                f"end with {END_MARK!r}). Nothing was recorded. Run it again; if it stays so, build the runner anew with "
                "`mvtool bench --build-runner`."
            ) from error

    def launch(self, started_s: float) -> Launch:
        """The launch as recorded."""
        marks = [
            MemoryMark(
                at=m.at,
                vm_hwm_bytes=m.vm_hwm_kb * 1024,
                vm_rss_bytes=m.vm_rss_kb * 1024,
                vm_swap_bytes=m.vm_swap_kb * 1024,
            )
            for m in self.memory
        ]
        return Launch(
            started_s=started_s,
            library_ns=self.library_ns,
            load_ns=self.load_ns,
            reset_ns=self.reset_ns,
            first_ns=self.first_ns,
            warmup_ns=self.warmup_ns,
            samples=self.samples,
            memory=tuple(marks),
        )
