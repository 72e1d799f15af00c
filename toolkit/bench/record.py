"""The record of a benchmark (`mvtool.bench/1`): what was measured, and on what.

One record per run, written once and never changed. It holds raw samples and readings; medians, percentiles,
verdicts and percentages are derived from it (`mvtool.bench.statistics`) whenever somebody asks, and are never stored.

A run is a number of *launches*: processes of the native runner that each load the artifact, execute it and end. How
much two launches differ shows what one launch cannot show, so the interval of a median comes from all of them.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator

from mvtool.bench.cross_check import CrossCheck
from mvtool.errors import ManifestError
from mvtool.files import write_atomic
from mvtool.ports import Document, Precision, Runtime

BENCH_SCHEMA: Final = "mvtool.bench/1"

Nanoseconds = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Place(StrEnum):
    """Where a process reads its memory counters."""

    START = "start"
    LIBRARY = "library"
    LOADED = "loaded"
    FIRST = "first"
    END = "end"


class MemoryMark(Document):
    """Counters of `/proc/self/status` at one place of a launch.

    Attributes:
        at: `start`: before the runtime library is opened. `library`: it is open, no model yet; the baseline of
            peak memory. `loaded`: model compiled, ports allocated. `first`: after the first invoke. `end`: after the last.
        vm_hwm_bytes: Peak resident memory so far.
        vm_rss_bytes: Resident memory now.
        vm_swap_bytes: Memory swapped out now (zram on phones), which the peak does not see.
    """

    at: Place
    vm_hwm_bytes: Bytes
    vm_rss_bytes: Bytes
    vm_swap_bytes: Bytes


class Samples(Document):
    """One entry per timed invoke in each column.

    Attributes:
        start_ns: Begin of the invoke, after the begin of the launch's timed part.
        input_ns: Reading the frame into the input port.
        inference_ns: The call of the runtime alone.
        state_ns: Handing every state output to its input.
        output_ns: Reading the outputs that are not state.
        late_ns: How long after its due time a paced invoke began; empty where frames were not paced.
    """

    start_ns: tuple[Nanoseconds, ...]
    input_ns: tuple[Nanoseconds, ...]
    inference_ns: tuple[Nanoseconds, ...]
    state_ns: tuple[Nanoseconds, ...]
    output_ns: tuple[Nanoseconds, ...]
    late_ns: tuple[Nanoseconds, ...] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Samples:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        optional = lengths.pop("late_ns")
        if len(set(lengths.values())) != 1 or optional not in (0, lengths["start_ns"]):
            raise ValueError(f"columns of samples differ in length: {lengths}, late_ns {optional}")
        return self


class Launch(Document):
    """One process of the runner.

    Attributes:
        started_s: Seconds after the record's `created`.
        library_ns: Opening the runtime library and making its environment.
        load_ns: Loading and compiling the model, delegate included.
        reset_ns: Writing the reset bytes of all states.
        first_ns: The first invoke, the runtime's call alone.
        warmup_ns: Invokes between the first and the timed ones, the runtime's call alone.
        samples: The timed invokes.
        memory: Counters in the order of `Place`.
    """

    started_s: float = Field(ge=0)
    library_ns: Nanoseconds
    load_ns: Nanoseconds
    reset_ns: Nanoseconds
    first_ns: Nanoseconds
    warmup_ns: tuple[Nanoseconds, ...]
    samples: Samples
    memory: tuple[MemoryMark, ...]

    @model_validator(mode="after")
    def _has_samples(self) -> Launch:
        if not self.samples.start_ns:
            raise ValueError("a launch without a timed invoke measured nothing")
        if [mark.at for mark in self.memory] != list(Place):
            raise ValueError(f"memory must be read at {', '.join(Place)}, in that order")
        return self


class ModelFacts(Document):
    """The model that was measured.

    Attributes:
        name: As in the build manifest.
        untrained: Its weights are a deterministic fill.
        frames_per_call: Video frames that one call consumes.
        frame_rate: Frames per second that it was trained at.
        macs: Multiply-adds of one call; None where they could not be counted.
    """

    name: str
    untrained: bool = False
    frames_per_call: int = Field(ge=1)
    frame_rate: float | None = None
    macs: int | None = None


class ArtifactFacts(Document):
    """The file that was executed.

    Attributes:
        file: Its name, without folder.
        build: Name of the build folder that it lies in; None for a file by itself.
        runtime: Runtime it is for.
        precision: Arithmetic of the bulk of its operators.
        bytes: Size.
        sha256: Hash of its bytes.
        state_bytes: Size of all state ports, on one side of the loop.
        port_bytes: Size of all other ports.
    """

    file: str
    build: str | None = None
    runtime: Runtime
    precision: Precision
    bytes: Bytes
    sha256: Sha256
    state_bytes: Bytes
    port_bytes: Bytes


class DeviceKind(StrEnum):
    """What kind of device."""

    HOST = "host"
    ANDROID = "android"
    IOS = "ios"


class DeviceFacts(Document):
    """The device; nothing in it changes while a run goes on.

    Attributes:
        kind: Host, Android or iOS.
        serial: Serial of the phone; the machine's name for a host.
        name: For people, for example `Google Pixel 8`.
        manufacturer: As the system says.
        model: As the system says; the processor's name for a host.
        soc: System on chip, for example `Tensor G3`; None where it is not told (before Android 12).
        abi: Instruction set, `arm64-v8a` on phones, `x86_64` on hosts.
        cores: Number of processors.
        memory_bytes: Physical memory.
        os: `Android`, `Linux`, ...
        os_version: Release of the system, on Android with the API level.
        build: Build fingerprint; the kernel's release for a host.
        loopback: It is no phone: a stand-in on this machine, for tests. Its figures mean nothing.
        emulated: Instructions were interpreted (qemu), so neither time nor memory means anything.
    """

    kind: DeviceKind
    serial: str
    name: str
    manufacturer: str = ""
    model: str = ""
    soc: str | None = None
    abi: str
    cores: int = Field(ge=1)
    memory_bytes: Bytes
    os: str
    os_version: str
    build: str
    loopback: bool = False
    emulated: bool = False


class EngineFacts(Document):
    """What executed the artifact.

    Attributes:
        api: Interface of the runtime that was called: `LiteRt`, `TfLite` or `ExecuTorch`.
        library: File name of the runtime library.
        library_version: As the library says, or as the package says that it came from; None if neither does.
        library_sha256: Hash of the library; of none where it is linked into the runner.
        delegate: What really ran the graph, for example `XNNPACK`; `none` for the runtime's own kernels.
        fully_accelerated: The delegate took every operator; None where the runtime does not tell.
        state_loop: How a state output reaches its input: `swap` of buffers, `alias` of one buffer, or `copy`.
        threads: Threads of the runtime.
        affinity: Hexadecimal mask of processors that the runner was pinned to; None if to none.
        runner_sha256: Hash of the runner's file.
        runner_version: Of the runner's sources.
        memory_includes: Parts of the process that an app would not hold, for example `libtorch`.
    """

    api: Literal["LiteRt", "TfLite", "ExecuTorch"]
    library: str
    library_version: str | None = None
    library_sha256: Sha256 | None = None
    delegate: str
    fully_accelerated: bool | None = None
    state_loop: Literal["swap", "alias", "copy"]
    threads: int = Field(ge=1)
    affinity: str | None = None
    runner_sha256: Sha256
    runner_version: str
    memory_includes: tuple[str, ...] = ()


class Moment(StrEnum):
    """When a reading was taken."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Reading(Document):
    """State of the device at one moment; what a device does not tell is None or absent.

    Attributes:
        moment: Before the first launch, during the launches, or after the last.
        time_s: Seconds after the record's `created`.
        battery_percent: Charge.
        charging: It is connected to power.
        battery_c: Temperature of the battery in degrees Celsius.
        thermal_status: Android's throttling status, 0 (none) to 6 (shutdown).
        temperatures_c: Sensor to degrees Celsius.
        frequencies_khz: Processor to its clock now.
        governors: Processor to its frequency governor.
        load_average: Of the last minute.
    """

    moment: Moment
    time_s: float = Field(ge=0)
    battery_percent: float | None = None
    charging: bool | None = None
    battery_c: float | None = None
    thermal_status: int | None = None
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    frequencies_khz: dict[str, int] = Field(default_factory=dict)
    governors: dict[str, str] = Field(default_factory=dict)
    load_average: float | None = None


class Options(Document):
    """What was asked for.

    Attributes:
        profile: `default`, `quick` or `sustained`.
        launches: Number of launches.
        fps: Video frames per second at which calls were paced; None for flat out.
        min_invokes: Timed invokes of one launch, at least.
        min_seconds: Seconds of its timed part, at least.
        warmup_invokes: Invokes before the timed part, at least.
        warmup_seconds: Seconds before the timed part, at least.
        max_temperature_c: Launches waited until the device was no warmer.
        video: Name of the file that the frames came from.
        frames: Number of different frames or clips, fed in turn.
        weight_cache: The first launch wrote XNNPACK's packed weights to a file, and the later ones mapped it.
    """

    profile: Literal["default", "quick", "sustained"]
    launches: int = Field(ge=1)
    fps: float | None = Field(default=None, gt=0)
    min_invokes: int = Field(ge=1)
    min_seconds: float = Field(ge=0)
    warmup_invokes: int = Field(ge=0)
    warmup_seconds: float = Field(ge=0)
    max_temperature_c: float | None = None
    video: str
    frames: int = Field(ge=1)
    weight_cache: bool = False


class PortCheck(Document):
    """One port's share in the correctness gate.

    Attributes:
        port: Name.
        error: max|difference| / max(max|expected|, 1e-3) over all steps, in real numbers.
        tolerance: What was allowed.
    """

    port: str
    error: float = Field(ge=0)
    tolerance: float = Field(gt=0)


class Correctness(Document):
    """The outputs on this device against the host's runtime on the same frames; a record exists only if it held.

    Attributes:
        steps: Calls from reset that were compared.
        reference: What computed the expected values, for example `LiteRT 2.3.0 on x86_64`.
        ports: One per output, and one per state after the last step.
    """

    steps: int = Field(ge=1)
    reference: str
    ports: tuple[PortCheck, ...]


class Roofline(Document):
    """Peaks of the same device, measured in the same run.

    Attributes:
        macs_per_second: Precision to multiply-adds per second of a large matrix product, with the library, threads and
            affinity of the run.
        bytes_per_second: Of a copy by one thread that does not fit the caches, bytes read and written together.
        method: How they were measured.
    """

    macs_per_second: dict[Precision, float]
    bytes_per_second: float | None = None
    method: str


class Record(Document):
    """One run; see the module docstring.

    Attributes:
        schema_id: Always `mvtool.bench/1`; the JSON key is `schema`.
        id: Unique per record.
        session: Shared by the records whose launches took turns.
        interleaved: There are other records of this session.
        created: UTC, ISO 8601, when the first launch was prepared.
        model: What was measured.
        artifact: Its file.
        device: Where.
        engine: What executed it.
        options: What was asked for.
        correctness: The gate that the outputs passed.
        launches: The measurements.
        readings: Of temperature, battery and clocks.
        roofline: Peaks of the device.
        cross_checks: What other tools measured on the same file and device.
        notes: What a reader should know, one sentence each.
        tools: Versions of mvtool and of what took part.
        extra: The user's own words (`--tag KEY=VALUE`), for example the commit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.bench/1"] = Field(default=BENCH_SCHEMA, alias="schema")
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    interleaved: bool = False
    created: str
    model: ModelFacts
    artifact: ArtifactFacts
    device: DeviceFacts
    engine: EngineFacts
    options: Options
    correctness: Correctness
    launches: tuple[Launch, ...] = Field(min_length=1)
    readings: tuple[Reading, ...] = ()
    roofline: Roofline | None = None
    cross_checks: tuple[CrossCheck, ...] = ()
    notes: tuple[str, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the record to a new file.

        Raises:
            FileExistsError: A record is never overwritten.
        """
        if path.exists():
            raise FileExistsError(f"{path} exists; a record is never overwritten.")
        write_atomic(path, (self.model_dump_json(by_alias=True) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a record.

        Raises:
            ManifestError: The file is missing, is no record, or is one of another version.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise ManifestError(f"{path} cannot be read ({error}). Expected a record of `mvtool bench`.") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ManifestError(
                f"{path} is no record of a benchmark ({BENCH_SCHEMA}): {where}: {first['msg']}. Records are written by "
                "`mvtool bench`, and are not edited."
            ) from error
