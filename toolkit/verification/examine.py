"""Everything that is checked about one artifact, inside a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from mvtool.build import ArtifactEntry
from mvtool.errors import MvtoolError
from mvtool.golden import read_golden
from mvtool.ports import PortManifest
from mvtool.runtimes import RuntimeModule, module_of, open_file
from mvtool.session import Session
from mvtool.verification import facts
from mvtool.verification.messages import ALL_SLOTS, PROBE_AFTER, PROBE_BEFORE, Job, Step
from mvtool.verification.order import check_order
from mvtool.verification.replay import Replay
from mvtool.verification.report import Check, CheckResult, Status, failed, passed
from mvtool.verification.simulation import find_simulation
from mvtool.verification.store import FrameStore

T = TypeVar("T")
Announce = Callable[[str], None]


class Examination:
    """The checks of one artifact, in the order they are made.

    Attributes:
        replay: Once the artifact is loaded.
    """

    def __init__(self, job: Job, announce: Announce) -> None:
        """Prepare; nothing of the artifact is read yet.

        Args:
            job: What to examine.
            announce: Called before each part that may take the process down.
        """
        self._job = job
        self._announce = announce
        self._listed = ArtifactEntry.model_validate_json(job.entry_json)
        self._reference = PortManifest.from_json(job.reference_json, "the reference program")
        self._store = FrameStore(job.store, self._reference, ALL_SLOTS)
        self._stepped = False
        self.replay: Replay | None = None

    def prepare(self) -> Iterator[CheckResult]:
        """Check the file against its manifests and load it; `replay` is set if it can be stepped."""
        module = module_of(self._listed.runtime)
        path, listed = self._job.artifact, self._listed.ports
        self._announce("reading the file's tables")
        complete = _guarded(Check.COMPLETE, lambda: self._complete(module))
        yield complete
        if complete.status is not Status.PASSED:
            return
        self._announce("reading the manifest in the file")
        embedded = _attempt(Check.EMBEDDED_MANIFEST, lambda: module.read_manifest(path))
        if isinstance(embedded, CheckResult):
            yield embedded
            return
        yield facts.check_embedded(embedded, listed)
        model = facts.check_model(embedded, listed, self._reference)
        yield model
        self._announce("reading the tensors of the file")
        yield from self._ports(module, embedded)
        if model.status is Status.PASSED:
            yield from self._load(embedded)

    def _complete(self, module: RuntimeModule) -> CheckResult:
        module.check_complete(self._job.artifact)
        return passed(Check.COMPLETE, "everything that the file refers to is inside it")

    def _ports(self, module: RuntimeModule, embedded: PortManifest) -> Iterator[CheckResult]:
        ports = _attempt(Check.FILE_PORTS, lambda: module.file_ports(self._job.artifact))
        if isinstance(ports, CheckResult):
            yield ports
            return
        yield facts.check_file_ports(ports, embedded)
        if self._listed.ports.states:
            yield facts.check_ties(ports, embedded)

    def _load(self, embedded: PortManifest) -> Iterator[CheckResult]:
        if self._listed.ports.states:
            yield _guarded(Check.RESET_VALUE, lambda: facts.check_reset(embedded, self._listed.ports, self._reference))
        self._announce("loading the artifact")
        session = _attempt(Check.LOADS, lambda: open_file(self._job.artifact, self._job.threads))
        if isinstance(session, CheckResult):
            yield session
            return
        self._announce("loading the simulation")
        replay = _attempt(Check.SIMULATION_ANCHOR, lambda: self._replay(session))
        if isinstance(replay, CheckResult):
            yield replay
        else:
            self.replay = replay

    def _replay(self, session: Session) -> Replay:
        listed = self._listed
        if listed.precision.quantized:
            simulation = find_simulation(listed.runtime, listed.precision, self._job.artifact, self._job.simulation)
            from mvtool.converters.lazy_code import code_when_wanted

            # Two graphs are edited in a dozen places each before they run.
            with code_when_wanted():
                return Replay(session, simulation, self._job.steps)
        return Replay(session, None, self._job.steps)

    def step(self, command: Step) -> Iterator[CheckResult]:
        """Replay one step; a result comes with the first one, and when one fails.

        Raises:
            MvtoolError: The artifact cannot be stepped any further.
        """
        assert self.replay is not None
        self._announce(f"replaying frame {command.number}")
        self.replay.step(command.number, self._store.read(command.slot))
        if not self._stepped:
            self._stepped = True
            yield passed(Check.LOADS, f"{self.replay.session.engine} loads and executes it")

    def finish(self) -> Iterator[CheckResult]:
        """All results of the replay, then the checks that disturb the stream."""
        replay = self.replay
        assert replay is not None
        yield from replay.results()
        self._announce("executing the order check")
        before, after = self._store.read(PROBE_BEFORE), self._store.read(PROBE_AFTER)
        yield _guarded(Check.ORDER, lambda: check_order(replay, before, after))
        self._announce("repeating frames after a reset")
        yield _guarded(Check.RESET_IS_FRESH, replay.check_reset)
        self._announce("executing the golden frames")
        golden = self._job.golden
        yield _guarded(Check.GOLDEN, lambda: replay.check_golden(read_golden(golden), self._job.tolerance))


def _guarded(check: Check, run: Callable[[], CheckResult]) -> CheckResult:
    return _attempt(check, run)


def _attempt(check: Check, run: Callable[[], T]) -> T | CheckResult:
    """What `run` returns, or the failure of `check` that its exception means."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything, and every fault must be reported
        return _fault(check, error)


def _fault(check: Check, error: Exception) -> CheckResult:
    """A check that could not be made is a failure; an error of ours speaks for itself."""
    text = str(error) if isinstance(error, MvtoolError) else f"unexpected {type(error).__name__}: {error}"
    return failed(check, text)
