"""One run: artifacts on a device, launch by launch, to records.

    artifact --feed, plan--> workspace on the device --runner--> result, dump --gate--> Launch --> Record

A record is made only when every launch ended well and every dump passed the gate; after any error there is none.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mvtool.bench.cooling import refuse_emergency, wait_until_cool
from mvtool.bench.correctness import Expected, check, expect
from mvtool.bench.cross_check import CrossCheck
from mvtool.bench.device import Device, Runner, Workspace
from mvtool.bench.frames_file import feed
from mvtool.bench.placing import place
from mvtool.bench.plan import CHECK_FILE, PLAN_FILE, WEIGHT_CACHE_FILE, InputFile, Plan
from mvtool.bench.profiles import Profile, Request, mask, max_seconds
from mvtool.bench.record import (
    Correctness,
    DeviceFacts,
    EngineFacts,
    Launch,
    Moment,
    Options,
    Reading,
    Record,
    Roofline,
)
from mvtool.bench.run_result import RunResult
from mvtool.bench.subjects import Subject
from mvtool.bench.watching import watching
from mvtool.build import tool_versions
from mvtool.errors import MvtoolError, RunnerError
from mvtool.files import sha256_of
from mvtool.ports import Runtime

CHECK_STEPS = 8
LOAD_S = 60.0
"""Allowed for loading a model before the runner counts as hung, beside `Request.hang_s`."""

Tell = Callable[[str, int, int], None]
"""Told what goes on, how many launches are done, and how many there are."""
MeasureRoofline = Callable[[Device, Request, Subject], Roofline | None]
MeasureCrossCheck = Callable[[Workspace, Subject, Runner], CrossCheck | None]


@dataclass
class _Clock:
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began


def bench(
    subjects: Sequence[Subject],
    device: Device,
    request: Request,
    *,
    source: str | None = None,
    roofline: MeasureRoofline | None = None,
    cross_check: MeasureCrossCheck | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Iterator[Record]:
    """Measure artifacts.

    Args:
        subjects: The artifacts.
        device: This machine or a phone.
        request: How long, at what pace, on how many threads.
        source: Video that the frames come from; the bundled clip if not given.
        roofline: Measures the peaks of the device for an artifact's runtime.
        cross_check: Runs another tool on the artifact, in the workspace that holds it.
        tell: Told of the progress.

    Yields:
        One record per artifact, as soon as it is whole; with `interleave` all at the end.

    Raises:
        DeviceError: The device cannot be reached, or was lost.
        RunnerError: A runner crashed, hung or gave no complete result.
        VerificationError: The device computes something else than the host.
        ToolchainError: A runner cannot be compiled.
    """
    facts = device.facts()
    groups = [tuple(subjects)] if request.interleave else [(subject,) for subject in subjects]
    for group in groups:
        yield from _Run(device, facts, request, source, roofline, cross_check, tell).records(group)


@dataclass
class _Contestant:
    """An artifact whose files lie in a workspace of the device."""

    subject: Subject
    space: Workspace
    runner: Runner
    plan: Plan
    options: Options
    expected: Expected
    launches: list[Launch] = field(default_factory=list)
    correctness: Correctness | None = None
    engine: EngineFacts | None = None
    cross_checks: tuple[CrossCheck, ...] = ()
    notes: list[str] = field(default_factory=list)
    stopped_early: bool = False

    @property
    def longest_s(self) -> float:
        """Seconds after which a timed part ends in any case."""
        return max_seconds(self.options, self.subject.model.frames_per_call)

    def launch(self, clock: _Clock, hang_s: float, device: str) -> None:
        """Execute the runner once, and take over what it measured."""
        started_s = clock.now_s
        for name in (self.plan.result, CHECK_FILE):
            self.space.remove(name)
        planned = self.options.warmup_seconds + self.longest_s + LOAD_S
        self.space.execute(self.runner.program.name, (PLAN_FILE,), self.runner.environment, planned + hang_s)
        result = RunResult.parse(self.space.get(self.plan.result), device)
        self.correctness = check(self.plan, self.space.get(CHECK_FILE), self.expected, device)
        self._take_engine(result, device)
        self.stopped_early |= result.stopped == "time"
        self.launches.append(result.launch(started_s))

    def _take_engine(self, result: RunResult, device: str) -> None:
        engine = EngineFacts(
            api=result.library.api,
            library=result.library.file,
            library_version=result.library.version or self.runner.library_version,
            library_sha256=None if self.runner.library is None else sha256_of(self.runner.library),
            delegate=result.delegate.name,
            fully_accelerated=result.delegate.fully_accelerated,
            state_loop=result.state_loop,
            threads=result.threads,
            affinity=result.affinity,
            runner_sha256=sha256_of(self.runner.program),
            runner_version=result.runner.version,
            memory_includes=result.memory_includes,
        )
        if self.engine not in (None, engine):
            raise RunnerError(
                f"Two launches of {self.subject.name} on {device} ran on different engines: {self.engine} and {engine}. "
                "Nothing was recorded. Run it again with nothing else on the device."
            )
        self.engine = engine


@dataclass
class _Run:
    """Launches of one artifact, or of several in turns."""

    device: Device
    facts: DeviceFacts
    request: Request
    source: str | None
    roofline: MeasureRoofline | None
    cross_check: MeasureCrossCheck | None
    tell: Tell
    clock: _Clock = field(default_factory=_Clock)
    readings: list[Reading] = field(default_factory=list)
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def records(self, subjects: Sequence[Subject]) -> list[Record]:
        """Prepare, launch in turns, and put the records together."""
        with ExitStack() as stack:
            contestants = [self._prepare(stack, subject) for subject in subjects]
            self._read(Moment.BEFORE)
            rounds = contestants[0].options.launches
            for number in range(rounds):
                # A, B, B, A: what drifts over the session falls on both alike.
                for place, one in enumerate(contestants if number % 2 == 0 else reversed(contestants)):
                    self.tell(one.subject.name, number * len(contestants) + place, rounds * len(contestants))
                    self._launch(one)
            self._read(Moment.AFTER)
            for one in contestants:
                self._cross_check(one)
        return [self._record(one) for one in contestants]

    def _prepare(self, stack: ExitStack, subject: Subject) -> _Contestant:
        self.tell(f"preparing {subject.name}", 0, 0)
        fed = feed(subject.ports, self.source)
        options = self.request.options(fed.origin, len(fed.steps))
        if self.request.weight_cache and subject.ports.runtime is Runtime.TFLITE:
            options = options.model_copy(update={"weight_cache": True})
        expected = expect(subject.path, [fed.steps[n % len(fed.steps)] for n in range(CHECK_STEPS)])
        runner = self.device.runner(subject.ports.runtime)
        space = stack.enter_context(self.device.workspace())
        plan = place(space, subject.path, subject.ports, runner, fed, self._plan(subject, options))
        return _Contestant(subject, space, runner, plan, options, expected)

    def _plan(self, subject: Subject, options: Options) -> Callable[[tuple[InputFile, ...], str, str | None], Plan]:
        return lambda inputs, model, library: Plan(
            ports=subject.ports,
            model=model,
            library=library,
            inputs=inputs,
            threads=self.request.threads,
            affinity=None if self.request.affinity is None else mask(self.request.affinity),
            check_steps=CHECK_STEPS,
            warmup_invokes=options.warmup_invokes,
            warmup_seconds=options.warmup_seconds,
            min_invokes=options.min_invokes,
            min_seconds=options.min_seconds,
            max_seconds=max_seconds(options, subject.model.frames_per_call),
            weight_cache=WEIGHT_CACHE_FILE if options.weight_cache else None,
            calls_per_second=None if options.fps is None else options.fps / subject.model.frames_per_call,
        )

    def _launch(self, one: _Contestant) -> None:
        request = self.request
        if request.max_temperature_c is not None:
            wait_until_cool(
                self.device,
                request.max_temperature_c,
                request.cool_down_s,
                tell=lambda celsius: self.tell(f"cooling down, {celsius:.1f} degrees", 0, 0),
            )
        with watching(self.device, self.clock, self.readings, active=request.profile is Profile.SUSTAINED):
            one.launch(self.clock, request.hang_s, self.facts.name)
        for reading in self.readings:
            refuse_emergency(reading)
        self._read(Moment.DURING)

    def _cross_check(self, one: _Contestant) -> None:
        """After the launches, so that another tool's heat does not fall on them."""
        if self.cross_check is not None:
            self.tell(f"cross-check of {one.subject.name}", 0, 0)
            try:
                found = self.cross_check(one.space, one.subject, one.runner)
            except MvtoolError as error:
                # The launches before it are whole; another tool's fault is no reason to lose them.
                one.notes.append(f"The cross-check failed: {error}")
                return
            one.cross_checks = () if found is None else (found,)

    def _read(self, moment: Moment) -> None:
        reading = self.device.reading(moment, round(self.clock.now_s, 3))
        refuse_emergency(reading)
        self.readings.append(reading)

    def _record(self, one: _Contestant) -> Record:
        assert one.engine is not None
        assert one.correctness is not None
        peaks = self._peaks(one)
        return Record(
            id=uuid.uuid4().hex,
            session=self.session,
            interleaved=self.request.interleave,
            created=self.clock.created.isoformat(timespec="seconds"),
            model=one.subject.model,
            artifact=one.subject.artifact,
            device=self.facts,
            engine=one.engine,
            options=one.options,
            correctness=one.correctness,
            launches=tuple(one.launches),
            readings=tuple(sorted(self.readings, key=lambda reading: reading.time_s)),
            roofline=peaks,
            cross_checks=one.cross_checks,
            notes=tuple(self._notes(one)),
            tools=dict(tool_versions()),
            extra=dict[str, Any](self.request.tags),
        )

    def _peaks(self, one: _Contestant) -> Roofline | None:
        if self.roofline is None:
            return None
        try:
            return self.roofline(self.device, self.request, one.subject)
        except MvtoolError as error:
            one.notes.append(f"The peaks of the device could not be measured: {error}")
            return None

    def _notes(self, one: _Contestant) -> Iterator[str]:
        if self.facts.loopback:
            yield "Measured on a stand-in for a phone, on the host itself: no figure is that of a phone."
        if self.facts.emulated:
            yield "Instructions were emulated: neither time nor memory means anything."
        fewest = min(len(launch.samples.start_ns) for launch in one.launches)
        if one.stopped_early and fewest < one.options.min_invokes:
            yield (
                f"A launch was ended after {one.longest_s:g} seconds with {fewest} invokes, fewer than the "
                f"{one.options.min_invokes} that the profile asks for."
            )
        elif one.stopped_early:
            yield f"A launch was ended after {one.longest_s:g} seconds: calls could not keep the pace."
        yield from one.notes
        if one.engine is not None and one.engine.memory_includes:
            yield f"The process also holds {', '.join(one.engine.memory_includes)}, which an app would not."


def file_name(record: Record) -> str:
    """Name of a record's file, unique by its id."""
    device = "".join(letter if letter.isalnum() else "-" for letter in record.device.name.lower()).strip("-")
    stamp = record.created.replace(":", "").replace("-", "")[:15]
    artifact = record.artifact
    build = "" if artifact.build in (None, record.model.name) else f"_{artifact.build}"
    return f"{record.model.name}{build}_{artifact.precision}_{artifact.runtime}_{device}_{stamp}_{record.id[:6]}.json"
