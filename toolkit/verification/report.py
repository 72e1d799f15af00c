"""What `mvtool verify` found, as data.

Every artifact must pass a fixed list of checks that follows from its runtime, its precision and
whether it carries state (`required_checks`). A check that was dropped, reported twice or not run is
a failure: an artifact passes when exactly the required checks are there and all of them passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from pydantic import Field

from mvtool.ports import Document, Precision, Runtime


class Check(StrEnum):
    """One promise that is tested; the value is its name in reports.

    Attributes:
        REFERENCE_FILES: The saved PyTorch programs are those that the manifest hashes.
        LISTED: The build manifest lists artifacts: every one that was requested, and every one in the folder.
        GOLDEN_FILE: The golden file is the hashed one and the PyTorch program reproduces it.
        INPUTS: Enough inputs were generated, and enough of them differ.
        SIZE: The file has the size that the manifest says.
        SHA256: The file has the hash that the manifest says.
        COMPLETE: Every byte that the file's own tables refer to is inside the file.
        EMBEDDED_MANIFEST: The port manifest inside the file is that of the build manifest.
        MODEL: Model, logical states and ports are those of the reference program.
        FILE_PORTS: The tensors of the file agree with its manifest.
        TIED_STATES: Each state has one scale and zero point on both sides of its loop.
        RESET_VALUE: The reset bytes are the encoded initial value of the trained model.
        LOADS: The runtime loads the file and executes a step.
        ORDER: Each input and output is the tensor its manifest says, proven by execution.
        REPLAY_OUTPUTS: Outputs of the free-running artifact follow the PyTorch stream.
        REPLAY_STATES: States of the free-running artifact follow the PyTorch stream.
        SIMULATION_ANCHOR: The simulation, with int8 weights and without activation rounding, follows the PyTorch stream.
        SIMULATION_OUTPUTS: Outputs follow the simulation that is fed the artifact's own state.
        SIMULATION_STATES: States follow the simulation that is fed the artifact's own state.
        GOLDEN: The artifact meets the tolerance of the golden file.
        RESET_IS_FRESH: After a reset the artifact computes what it did when fresh, bit by bit.
        COMPLETENESS: All of the above were reported once each.
    """

    REFERENCE_FILES = "reference_files"
    LISTED = "listed"
    GOLDEN_FILE = "golden_file"
    INPUTS = "inputs"
    SIZE = "size"
    SHA256 = "sha256"
    COMPLETE = "complete"
    EMBEDDED_MANIFEST = "embedded_manifest"
    MODEL = "model"
    FILE_PORTS = "file_ports"
    TIED_STATES = "tied_states"
    RESET_VALUE = "reset_value"
    LOADS = "loads"
    ORDER = "order"
    REPLAY_OUTPUTS = "replay_outputs"
    REPLAY_STATES = "replay_states"
    SIMULATION_ANCHOR = "simulation_anchor"
    SIMULATION_OUTPUTS = "simulation_outputs"
    SIMULATION_STATES = "simulation_states"
    GOLDEN = "golden"
    RESET_IS_FRESH = "reset_is_fresh"
    COMPLETENESS = "completeness"


class Status(StrEnum):
    """Outcome of a check; only `PASSED` is good."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


BUILD_CHECKS = (Check.REFERENCE_FILES, Check.LISTED, Check.GOLDEN_FILE, Check.INPUTS)
_FILE_CHECKS = (
    Check.SIZE,
    Check.SHA256,
    Check.COMPLETE,
    Check.EMBEDDED_MANIFEST,
    Check.MODEL,
    Check.FILE_PORTS,
    Check.LOADS,
    Check.ORDER,
    Check.GOLDEN,
    Check.RESET_IS_FRESH,
)
_STATE_CHECKS = (Check.TIED_STATES, Check.RESET_VALUE)


def required_checks(precision: Precision, stream: bool) -> tuple[Check, ...]:
    """The checks that an artifact must pass, each once.

    Args:
        precision: fp32 and fp16 are held against the PyTorch stream, those with int8 weights against their simulation.
        stream: The artifact carries state.
    """
    checks = [*_FILE_CHECKS, *(_STATE_CHECKS if stream else ())]
    if precision.quantized:
        checks += [Check.SIMULATION_ANCHOR, Check.SIMULATION_OUTPUTS]
        checks += [Check.SIMULATION_STATES] if stream else []
    else:
        checks += [Check.REPLAY_OUTPUTS]
        checks += [Check.REPLAY_STATES] if stream else []
    return tuple(check for check in Check if check in checks)


class CheckResult(Document):
    """Outcome of one check.

    Attributes:
        check: Which one.
        status: Its outcome.
        message: What was found, in a sentence.
        worst: Largest error found, in the unit of `limit`.
        limit: Largest error allowed.
        tensor: Output or state where the worst error is.
        frame: Frame of the worst error, counted from 1.
    """

    check: Check
    status: Status
    message: str
    worst: float | None = None
    limit: float | None = None
    tensor: str | None = None
    frame: int | None = None


def passed(check: Check, message: str, **found: float | str | None) -> CheckResult:
    """A check that holds."""
    return CheckResult(check=check, status=Status.PASSED, message=message, **found)


def failed(check: Check, message: str, **found: float | str | None) -> CheckResult:
    """A check that does not hold."""
    return CheckResult(check=check, status=Status.FAILED, message=message, **found)


def blame(required: Sequence[Check], found: Sequence[CheckResult], reason: str) -> CheckResult:
    """The failure of the check that was under way when an examination broke off: the first without a result."""
    done = {result.check for result in found}
    return failed(next((check for check in required if check not in done), Check.COMPLETENESS), reason)


def settle(required: Sequence[Check], found: Iterable[CheckResult], why_missing: str) -> tuple[CheckResult, ...]:
    """Bring results into the order of `required`, and turn every gap or surplus into a failure.

    Args:
        required: Checks that must be there, each once.
        found: Results as they came.
        why_missing: Reason given for a required check that has no result.
    """
    results = list(found)
    names = [result.check for result in results]
    settled, faults = [], []
    for check in required:
        own = [result for result in results if result.check is check]
        settled += own or [CheckResult(check=check, status=Status.NOT_RUN, message=f"not run: {why_missing}")]
        faults += [f"{check.value} was reported {len(own)} times"] if len(own) > 1 else []
        faults += [f"{check.value} was not run"] if not own else []
    faults += [f"{name.value} is not a check of this artifact" for name in dict.fromkeys(names) if name not in required]
    settled += [result for result in results if result.check not in required]
    if faults:
        return (*settled, failed(Check.COMPLETENESS, "; ".join(faults)))
    return (*settled, passed(Check.COMPLETENESS, f"{len(required)} checks, each run once"))


class SignalToNoise(Document):
    """How well the free-running artifact follows the fp32 PyTorch stream at one frame.

    Attributes:
        frame: Counted from 1.
        outputs_db: `10 log10(sum(reference^2) / sum(difference^2))` over all outputs; at most 200.
        states_db: The same over the state that follows worst, `None` without states.
        worst_state: Name of that state.
    """

    frame: int = Field(ge=1)
    outputs_db: float
    states_db: float | None = None
    worst_state: str | None = None


class ArtifactReport(Document):
    """What was found about one artifact.

    Attributes:
        file: Name in the build folder.
        runtime: As in the build manifest.
        precision: As in the build manifest.
        engine: What executed it, `None` if it never ran.
        sha256: Hash of the file that was tested.
        frames: Steps that were replayed.
        checks: Results, in the order of `Check`.
        snr: Of the free-running artifact against the fp32 PyTorch stream.
        seconds: Processor time of the artifact's own process.
    """

    file: str
    runtime: Runtime
    precision: Precision
    engine: str | None = None
    sha256: str | None = None
    frames: int = 0
    checks: tuple[CheckResult, ...]
    snr: tuple[SignalToNoise, ...] = ()
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every required check is there and holds."""
        return bool(self.checks) and all(result.status is Status.PASSED for result in self.checks)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """Checks that failed or were not run."""
        return tuple(result for result in self.checks if result.status is not Status.PASSED)


class Verification(Document):
    """Result of verifying a build.

    Attributes:
        model: Name of the model.
        frames: Steps replayed per artifact.
        step: What one step takes: `frame`, `clip`, or `step` for several frames of a stream.
        distinct_inputs: How many of the generated inputs differ from each other.
        checks: Checks of the build as a whole.
        artifacts: One report per artifact of the build manifest, in its order.
        seconds: Wall time.
        stages: Wall time of its stages in seconds; empty in a report of an mvtool that did not record it.
        tools: Versions of mvtool and of the frameworks that took part.
    """

    model: str
    frames: int
    step: str = "frame"
    distinct_inputs: int
    checks: tuple[CheckResult, ...]
    artifacts: tuple[ArtifactReport, ...]
    seconds: float = 0.0
    stages: dict[str, float] = Field(default_factory=dict)
    tools: dict[str, str] = Field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the build has artifacts and everything holds for each of them."""
        build = bool(self.checks) and all(result.status is Status.PASSED for result in self.checks)
        return build and bool(self.artifacts) and all(artifact.passed for artifact in self.artifacts)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per check that failed or was not run."""
        lines = [f"{r.check.value}: {r.message}" for r in self.checks if r.status is not Status.PASSED]
        for artifact in self.artifacts:
            lines += [f"{artifact.file}: {r.check.value}: {r.message}" for r in artifact.failures]
        return tuple(lines) or (() if self.artifacts else ("the build has no artifacts",))

    def summary(self) -> str:
        """One sentence with the verdict."""
        good = sum(artifact.passed for artifact in self.artifacts)
        verdict = "verified" if self.passed else "NOT verified"
        return (
            f"{self.model} is {verdict}: {good} of {len(self.artifacts)} artifacts hold over {self.frames} {self.step}s"
        )
