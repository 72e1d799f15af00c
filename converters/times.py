"""What the stages of a conversion cost."""

from __future__ import annotations

import time

from mvtool.build import ConversionTimes, StageTime
from mvtool.converters.progress import Listener, StageEvent
from mvtool.forking import Template

PREPARE = "prepare workers"
"""The stage of the process that workers are forked from."""


class Times:
    """A listener that adds up the stages which all artifacts share, and passes every event on."""

    def __init__(self, tell: Listener) -> None:
        """Start the clock."""
        self._tell = tell
        self._began = time.perf_counter()
        self._running: dict[str, tuple[float, float]] = {}
        self._stages: dict[str, StageTime] = {}

    def __call__(self, event: StageEvent) -> None:
        """Take `event` into account."""
        if event.target is None and event.status == "start":
            self._running[event.stage] = (time.perf_counter(), time.process_time())
        elif event.target is None and self._running.pop(event.stage, None) is not None:
            self._add(event.stage, event.seconds or 0.0, event.cpu_seconds or 0.0)
        self._tell(event)

    def report(self, template: Template | None, workers: int, calibrated: int) -> ConversionTimes:
        """The times until now; stages of this process that still run count up to now.

        Args:
            template: What the workers were forked from.
            workers: How many there were.
            calibrated: Artifacts that were calibrated.
        """
        stages = dict(self._stages)
        for name, (wall, cpu) in self._running.items():
            stages[name] = _time(time.perf_counter() - wall, time.process_time() - cpu)
        reused = []
        if template is not None and template.cpu_seconds:
            stages[PREPARE] = _time(template.busy_seconds, template.cpu_seconds)
            reused.append(
                f"{workers} worker processes are copies of one that had imported the frameworks and loaded the program"
            )
        if calibrated > 1:
            reused.append(f"clips and ranges of ports and states were measured once for {calibrated} int8 artifacts")
        return ConversionTimes(seconds=round(time.perf_counter() - self._began, 3), stages=stages, reused=tuple(reused))

    def _add(self, name: str, wall: float, cpu: float) -> None:
        before = self._stages.get(name, StageTime(seconds=0.0, cpu_seconds=0.0))
        self._stages[name] = _time(before.seconds + wall, before.cpu_seconds + cpu)


def _time(wall: float, cpu: float) -> StageTime:
    return StageTime(seconds=round(wall, 3), cpu_seconds=round(cpu, 3))
