"""The build: a folder with artifacts, their reference, a golden file and `manifest.json` (`mvtool.build/1`).

    manifest.json                    this document
    <model>_<precision>.tflite       artifacts; also .pte and .mlpackage
    golden.npz                       inputs and the outputs that the fp32 PyTorch stream gives for them
    reference/program/               the captured PyTorch program, `mvtool.converters.program_io`
    reference/<name>/                the quantized PyTorch programs that int8 artifacts are held against
    reference/state_ranges.json      ranges of the states while int8 was calibrated

File names are relative; a manifest that points out of its folder is refused.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

import mvtool
from mvtool.errors import ManifestError, UsageError
from mvtool.files import check_relative, inside, sha256_of, size_of, write_atomic
from mvtool.ports import Document, PortManifest, Precision, Runtime
from mvtool.program import RewriteReport
from mvtool.verification.report import Verification

if TYPE_CHECKING:
    from mvtool.session import Session

BUILD_SCHEMA = "mvtool.build/1"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
REFERENCE_FOLDER = "reference"
STATE_RANGES_FILE = "reference/state_ranges.json"
PROGRAM_FOLDER = "reference/program"

SUFFIX_OF_RUNTIME = {Runtime.TFLITE: ".tflite", Runtime.EXECUTORCH: ".pte", Runtime.COREML: ".mlpackage"}
DEFAULT_RUNTIMES = (Runtime.TFLITE, Runtime.EXECUTORCH, Runtime.COREML)
DEFAULT_PRECISIONS = tuple(Precision)

_TOOLS = (
    "ai-edge-litert",
    "coremltools",
    "executorch",
    "litert-torch",
    "numpy",
    "tflite-runtime",
    "torch",
)

RelativePath = Annotated[str, AfterValidator(check_relative)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Document):
    """A file or folder of the build.

    Attributes:
        file: Relative path below the build folder, with `/`.
        bytes: Size; of all files together for a folder.
        sha256: `mvtool.files.sha256_of`.
    """

    file: RelativePath
    bytes: int = Field(ge=0)
    sha256: Sha256


class WeightsProvenance(Document):
    """Where the weights came from; names and hashes only, no path of the converting machine.

    Attributes:
        file_name: Name of the weight file without its folder.
        sha256: Hash of that file.
        naming: Key naming that was recognised, for example `model_garden`.
        gate: Squeeze-excite gate that was used for imported streams.
    """

    file_name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    sha256: Sha256
    naming: str | None = None
    gate: str | None = None


class ModelProvenance(Document):
    """What was converted.

    Attributes:
        name: As in every port manifest of the build.
        source: Registry name, `package.module:factory`, or the file name of a saved program.
        sha256: Hash of a saved program.
        untrained: The weights are a deterministic fill.
        weights: Where they came from, one entry per member of an ensemble; none for a deterministic fill, and for
            weights that were already in the user's module or program.
    """

    name: str
    source: str
    sha256: Sha256 | None = None
    untrained: bool = False
    weights: tuple[WeightsProvenance, ...] = ()


class CalibrationEntry(Document):
    """What the int8 artifacts were calibrated on.

    Attributes:
        origin: Name of the user's file or folder, of the bundled clip, or `random`.
        bundled: It is not the user's data.
        clips: Number of clips.
        steps: Number of calls of the model, over all clips.
        notes: What the user should know, one sentence each.
        state_ranges: Ranges of the states after every step, for streams, see `mvtool.quantization.state_ranges`.
    """

    origin: str
    bundled: bool
    clips: int
    steps: int
    notes: tuple[str, ...] = ()
    state_ranges: FileEntry | None = None


class RewriteEntry(Document):
    """`mvtool.program.RewriteReport` as written to the manifest."""

    name: str
    changed: int
    max_difference: float
    details: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: RewriteReport) -> RewriteEntry:
        """The entry of `report`."""
        return cls(
            name=report.name,
            changed=report.changed,
            max_difference=report.max_difference,
            details=tuple(report.details),
            left_alone=tuple(report.left_alone),
        )


class FloatLayer(Document):
    """A layer that stays float in an int8 artifact.

    Attributes:
        name: Of the layer, see `mvtool.quantization.layers`.
        snr_db: Signal to noise at the model's outputs with this layer alone in int8, in dB: why it was chosen before others.
    """

    name: str
    snr_db: float


class ControlTrial(Document):
    """One int8 artifact that was evaluated.

    Attributes:
        float_layers: Number of layers that stayed float.
        drop: How much lower its share of right answers is than that of the float model.
        low: Lower end of the drop's 95 % interval.
        high: Upper end.
    """

    float_layers: int = Field(ge=0)
    drop: float
    low: float
    high: float


class AccuracyControl(Document):
    """Which layers of an int8 artifact stay float so that it loses no more accuracy than allowed.

    Attributes:
        dataset: Specification of the clips that decided.
        clips: Their number.
        base: What the drop is counted beside, on the same clips.
        max_drop: Largest drop that was allowed, a share.
        trials: Artifacts that were evaluated, in order; none where `as_in` decided.
        as_in: Runtime whose layers were taken over, because this artifact itself cannot be executed in reasonable time here.
        layers: Layers that stay float, most costly first.
    """

    dataset: str
    clips: int = Field(ge=1)
    base: str
    max_drop: float = Field(ge=0, le=1)
    trials: tuple[ControlTrial, ...] = ()
    as_in: Runtime | None = None
    layers: tuple[FloatLayer, ...] = ()


class Trial(Document):
    """One form of one operator, or of the whole artifact, as `mvtool convert --autotune` timed it.

    Attributes:
        kind: What differs: the form of a convolution over time, pixels that are computed as one, or all of it.
        operators: Names in the captured program; they have the same sizes, so one was timed.
        layers: Their module paths.
        what: Their sizes.
        form: The form.
        us: Microseconds per call, median of the rounds.
        low_us: Their lower quartile.
        high_us: Their upper quartile.
        chosen: The artifact has it.
    """

    kind: Literal["temporal", "pixels", "whole"]
    operators: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    what: str = ""
    form: str
    us: float
    low_us: float
    high_us: float
    chosen: bool


class StageTime(Document):
    """What a stage cost.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time of the process that did it.
    """

    seconds: float
    cpu_seconds: float


class ConversionTimes(Document):
    """What a conversion cost beside its artifacts, which say their own times.

    Attributes:
        seconds: Wall time from its begin until the manifest was written.
        stages: Stages that all artifacts share.
        reused: What was made once and used several times, one sentence each.
    """

    seconds: float
    stages: dict[str, StageTime]
    reused: tuple[str, ...] = ()


class ArtifactEntry(FileEntry):
    """One artifact.

    Attributes:
        runtime: Runtime it is for.
        precision: Arithmetic of the bulk of its operators.
        ports: Its port manifest, the same that is embedded in it.
        recipe: Options of the conversion that shaped this artifact.
        rewrites: What each rewrite did to the graph.
        delegation: How much of it the accelerated path takes, as the emitter measured it.
        control: Which layers stay float and why, where a largest drop of the accuracy was given.
        simulation: `name` of the quantized PyTorch program it is held against (int8 weights of ExecuTorch and Core ML).
        seconds: Conversion time per stage, wall time.
        cpu_seconds: Processor time of the same stages; empty in a build of an mvtool that did not record it.
        trials: Forms of operators that were timed to choose the recipe.
    """

    runtime: Runtime
    precision: Precision
    ports: PortManifest
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    rewrites: tuple[RewriteEntry, ...] = ()
    delegation: dict[str, JsonValue] = Field(default_factory=dict)
    control: AccuracyControl | None = None
    simulation: str | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    cpu_seconds: dict[str, float] = Field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    @model_validator(mode="after")
    def _agrees(self) -> ArtifactEntry:
        if (self.ports.runtime, self.ports.precision) != (self.runtime, self.precision):
            raise ValueError(
                f"{self.file} is listed as {self.runtime} {self.precision}, "
                f"but its port manifest says {self.ports.runtime} {self.ports.precision}"
            )
        if not self.file.endswith(SUFFIX_OF_RUNTIME[self.runtime]):
            raise ValueError(
                f"{self.file} is listed as {self.runtime}, whose files end in {SUFFIX_OF_RUNTIME[self.runtime]}"
            )
        return self


class SimulationEntry(FileEntry):
    """A quantized PyTorch program with float ports; the file is a folder of `program_io`.

    Attributes:
        name: Referred to by `ArtifactEntry.simulation`.
    """

    name: str


class GoldenEntry(FileEntry):
    """The golden file, for unit tests of an app; see `mvtool.golden`.

    Attributes:
        frames: Number of steps, from reset.
        tolerances: Precision to the largest error allowed for any output at any of those steps, where
            error = max|difference| / max(max|expected|, 1e-3).
    """

    frames: int = Field(ge=1)
    tolerances: dict[Precision, Annotated[float, Field(gt=0)]]


class RequestedArtifact(Document):
    """What one artifact was to be; the conversion may have failed.

    Attributes:
        runtime: Runtime it is for.
        precision: Arithmetic of the bulk of its operators.
    """

    runtime: Runtime
    precision: Precision


class BuildManifest(Document):
    """`manifest.json`; see the module docstring.

    Attributes:
        schema_id: Always `mvtool.build/1`; the JSON key is `schema`.
        model: What was converted.
        options: Options of the conversion that all artifacts share.
        calibration: Of the int8 artifacts.
        requested: Every artifact that the conversion was asked for; empty in a build of an mvtool that did not record it.
        artifacts: Each file, runtime and precision pair once.
        program: The captured PyTorch program.
        simulations: Quantized PyTorch programs.
        golden: The golden file.
        times: What the conversion cost beside its artifacts; None in a build of an mvtool that did not record it.
        verification: Result of the last `mvtool verify`.
        tools: Versions of mvtool and of the frameworks that wrote the build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.build/1"] = Field(default="mvtool.build/1", alias="schema")
    model: ModelProvenance
    options: dict[str, JsonValue] = Field(default_factory=dict)
    calibration: CalibrationEntry | None = None
    requested: tuple[RequestedArtifact, ...] = ()
    artifacts: tuple[ArtifactEntry, ...]
    program: FileEntry
    simulations: tuple[SimulationEntry, ...] = ()
    golden: GoldenEntry
    times: ConversionTimes | None = None
    verification: Verification | None = None
    tools: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _unique(self) -> BuildManifest:
        _refuse_duplicates("file", [entry.file for entry in self.files])
        _refuse_duplicates("artifact", [f"{a.runtime} {a.precision}" for a in self.artifacts])
        _refuse_duplicates("requested artifact", [f"{r.runtime} {r.precision}" for r in self.requested])
        _refuse_duplicates("simulation", [s.name for s in self.simulations])
        known = {s.name for s in self.simulations}
        for artifact in self.artifacts:
            if artifact.simulation is not None and artifact.simulation not in known:
                raise ValueError(
                    f"{artifact.file} names simulation {artifact.simulation!r}; the build has {sorted(known)}"
                )
        return self

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Everything that the manifest names."""
        ranges = None if self.calibration is None else self.calibration.state_ranges
        records = () if ranges is None else (ranges,)
        return (*self.artifacts, self.program, *self.simulations, self.golden, *records)

    @property
    def missing(self) -> tuple[RequestedArtifact, ...]:
        """What was requested and is not among the artifacts, because its conversion failed."""
        have = {(artifact.runtime, artifact.precision) for artifact in self.artifacts}
        return tuple(wanted for wanted in self.requested if (wanted.runtime, wanted.precision) not in have)

    def to_json(self) -> str:
        """Indented JSON, keys in the order of the fields."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, origin: str) -> BuildManifest:
        """Parse a manifest; `origin` names the file in error messages.

        Raises:
            ManifestError: Not JSON, an unknown or missing key, an inconsistent value, or a path out of the folder.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ManifestError(
                f"The build manifest {origin} is not valid: {error}. Convert the model again."
            ) from error


def _refuse_duplicates(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{kind} {name} is listed twice")
        seen.add(name)


class Build:
    """A build folder on disk.

    Attributes:
        folder: Where it is.
        manifest: Its parsed `manifest.json`.
    """

    def __init__(self, folder: str | Path, manifest: BuildManifest) -> None:
        """Join a folder and the manifest that describes it; nothing is read or written."""
        self.folder = Path(folder)
        self.manifest = manifest

    @classmethod
    def load(cls, folder: str | Path) -> Build:
        """Read the manifest of `folder` and check that every name stays inside it.

        Raises:
            ManifestError: There is no manifest, it is malformed, or it names a file outside the folder.
        """
        path = Path(folder) / MANIFEST_FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ManifestError(
                f"{folder} is not a build folder: {MANIFEST_FILE} cannot be read ({error}). "
                "Expected a folder written by `mvtool convert --out`."
            ) from error
        build = cls(folder, BuildManifest.from_json(text, str(path)))
        for entry in build.manifest.files:
            build.path(entry)
        return build

    def save(self) -> None:
        """Write `manifest.json` atomically."""
        write_atomic(self.folder / MANIFEST_FILE, self.manifest.to_json().encode())

    def path(self, entry: FileEntry) -> Path:
        """Where `entry` lies.

        Raises:
            ManifestError: It lies outside the build folder.
        """
        return inside(self.folder, entry.file)

    def with_verification(self, verification: Verification) -> Build:
        """The same build with another verification result; `save` writes it."""
        return Build(self.folder, self.manifest.model_copy(update={"verification": verification}))

    def artifact(self, runtime: Runtime | str | None = None, precision: Precision | str | None = None) -> ArtifactEntry:
        """The artifact of a runtime and precision; what is not given is chosen.

        The choice, which `mvtool run` and `mvtool.open` share: the first precision of fp32, fp16, int8,
        int8-dynamic, int8-weights that the build has, then the first runtime of tflite, executorch, coreml. So a bare `open` gives the
        TFLite fp32 artifact: the nearest to the trained model, on the runtime that executes everywhere.

        Raises:
            UsageError: The build has no such artifact.
        """
        fits = [a for a in self.manifest.artifacts if runtime in (None, a.runtime) and precision in (None, a.precision)]
        if not fits:
            have = ", ".join(f"{a.runtime} {a.precision}" for a in self.manifest.artifacts) or "none"
            raise UsageError(
                f"{self.folder} has no artifact for {runtime or 'any runtime'} in {precision or 'any precision'}. "
                f"It has: {have}."
            )
        return min(fits, key=lambda a: (DEFAULT_PRECISIONS.index(a.precision), DEFAULT_RUNTIMES.index(a.runtime)))

    def check_hash(self, entry: FileEntry) -> None:
        """Compare a file with its entry.

        Raises:
            ManifestError: It is missing, or its size or hash differs.
        """
        path = self.path(entry)
        if not path.exists():
            raise ManifestError(f"{path} is missing, though the build manifest lists it. Convert the model again.")
        if (size := size_of(path)) != entry.bytes:
            fault = "is truncated" if size < entry.bytes else "is too long"
            raise ManifestError(
                f"{path} {fault}: it has {size} bytes, the build manifest says {entry.bytes}. Convert the model again."
            )
        if (digest := sha256_of(path)) != entry.sha256:
            raise ManifestError(
                f"{path} has the hash {digest}, the build manifest says {entry.sha256}: the file was changed or belongs "
                "to another build. Convert the model again."
            )

    def open(
        self, runtime: Runtime | str | None = None, precision: Precision | str | None = None, threads: int = 1
    ) -> Session:
        """A session on `artifact(runtime, precision)`, after its size and hash were checked.

        Raises:
            UsageError: The build has no such artifact.
            ManifestError: The file is not the one that the manifest describes.
            RuntimeLoadError: The runtime refuses it.
        """
        from mvtool.runtimes import open_file

        entry = self.artifact(runtime, precision)
        self.check_hash(entry)
        session = open_file(self.path(entry), threads=threads)
        if session.manifest != entry.ports:
            raise ManifestError(
                f"The port manifest inside {self.path(entry)} is not the one in {MANIFEST_FILE}. Convert the model again."
            )
        return session


def describe(folder: Path, name: str) -> FileEntry:
    """The entry of the existing file or folder `name` of `folder`."""
    path = inside(folder, name)
    return FileEntry(file=name, bytes=size_of(path), sha256=sha256_of(path))


def artifact_file_name(model: str, runtime: Runtime, precision: Precision) -> str:
    """`<model>_<precision>` and the suffix of the runtime."""
    return f"{model}_{precision}{SUFFIX_OF_RUNTIME[runtime]}"


def tool_versions() -> Mapping[str, str]:
    """Versions of mvtool and of the installed frameworks that convert or execute."""
    versions = {"mvtool": mvtool.__version__}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
