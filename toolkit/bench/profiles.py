"""How long a benchmark measures.

The default follows MLPerf's rule for single streams: at least 1,024 invokes and 60 seconds, the 90th percentile
reported (https://github.com/mlcommons/inference_policies, table of scenarios), here divided among launches,
since a single process does not show how much the next one differs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from mvtool.bench.record import Options
from mvtool.errors import UsageError

LAUNCHES = 8
"""With 8, `compare` finds a change of 10 % in at least 90 % of cases where launches scatter by 4 %; with 6 it does not
(docs/decisions/011-comparing-benchmarks.md)."""
MIN_INVOKES = 1024
MIN_SECONDS = 60.0
MAX_THREADS = 1024
"""More than any phone has; the runner refuses more."""
MARGIN_S = 5.0
"""The last calls of a run may be late."""


class Profile(StrEnum):
    """Which of the three."""

    DEFAULT = "default"
    QUICK = "quick"
    SUSTAINED = "sustained"


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        quick: A glance: three launches of a second.
        minutes: One launch of so many minutes, to see what heat does; None for a benchmark of several launches.
        launches: Instead of the profile's number.
        fps: Video frames per second at which calls are paced; None for flat out.
        threads: Threads of the runtime.
        affinity: Hexadecimal mask of processors.
        max_temperature_c: Wait before each launch until the device is no warmer.
        cool_down_s: Longest such wait.
        hang_s: A launch that takes so much longer than planned is ended and counts as hung.
        interleave: Launches of several artifacts take turns.
        roofline: Measure the peaks of the device too.
        weight_cache: TFLite artifacts keep XNNPACK's packed weights in a file that all launches share.
        tags: The user's own words for the record.
    """

    quick: bool = False
    minutes: float | None = None
    launches: int | None = None
    fps: float | None = None
    threads: int = 1
    affinity: str | None = None
    max_temperature_c: float | None = None
    cool_down_s: float = 900.0
    hang_s: float = 300.0
    interleave: bool = False
    roofline: bool = True
    weight_cache: bool = False
    tags: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself or is no sensible number.

        Raises:
            UsageError: `quick` and `minutes` together, an affinity that is no mask, or a number out of its range.
        """
        if self.quick and self.minutes is not None:
            raise UsageError("--quick and --minutes contradict each other; give one of them.")
        if self.affinity is not None and not _is_mask(self.affinity):
            raise UsageError(
                f"--affinity got {self.affinity!r}; expected a hexadecimal mask of processors such as 80 for the eighth."
            )
        for option, value, low, high in (
            ("--threads", self.threads, 1, MAX_THREADS),
            ("--fps", self.fps, 0.01, 1e6),
            ("--minutes", self.minutes, 0.0, 24 * 60),
            ("--max-temperature", self.max_temperature_c, -50.0, 150.0),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{option} got {value:g}; expected a number from {low:g} to {high:g}.")

    @property
    def profile(self) -> Profile:
        """The profile that was asked for."""
        if self.minutes is not None:
            return Profile.SUSTAINED
        return Profile.QUICK if self.quick else Profile.DEFAULT

    def options(self, video: str, frames: int) -> Options:
        """The options of a record.

        Args:
            video: Where the frames came from.
            frames: How many different ones there are.
        """
        chosen = _OPTIONS[self.profile]
        launches = self.launches or chosen.launches
        invokes = math.ceil(MIN_INVOKES / launches) if self.profile is Profile.DEFAULT else chosen.min_invokes
        seconds = MIN_SECONDS / launches if self.profile is Profile.DEFAULT else chosen.min_seconds
        return chosen.model_copy(
            update={
                "launches": launches,
                "fps": self.fps,
                "min_invokes": invokes,
                "min_seconds": seconds if self.minutes is None else 60.0 * self.minutes,
                "max_temperature_c": self.max_temperature_c,
                "video": video,
                "frames": frames,
            }
        )


def max_seconds(options: Options, frames_per_call: int) -> float:
    """Longest timed part of one launch: a slow model must not take hours for its number of invokes.

    Args:
        options: Of the run; a slow pace is what was asked for, and has the time that it needs.
        frames_per_call: Video frames that one call consumes.
    """
    if options.profile == Profile.SUSTAINED.value:
        return options.min_seconds + MARGIN_S
    paced_s = 0.0 if options.fps is None else options.min_invokes * frames_per_call / options.fps + MARGIN_S
    return max(4.0 * options.min_seconds, 20.0, paced_s)


def mask(text: str) -> str:
    """A mask without its prefix, as the runner takes it."""
    return text.lower().removeprefix("0x")


def _is_mask(text: str) -> bool:
    return re.fullmatch(r"(0x)?[0-9a-f]{1,64}", text.lower()) is not None and int(text, 16) > 0


def _profile(name: Profile, launches: int, invokes: int, seconds: float, warmup: tuple[int, float]) -> Options:
    return Options(
        profile=name.value,
        launches=launches,
        min_invokes=invokes,
        min_seconds=seconds,
        warmup_invokes=warmup[0],
        warmup_seconds=warmup[1],
        video="-",
        frames=1,
    )


_OPTIONS = {
    Profile.DEFAULT: _profile(
        Profile.DEFAULT, LAUNCHES, math.ceil(MIN_INVOKES / LAUNCHES), MIN_SECONDS / LAUNCHES, (10, 1.0)
    ),
    Profile.QUICK: _profile(Profile.QUICK, 3, 20, 1.0, (5, 0.2)),
    Profile.SUSTAINED: _profile(Profile.SUSTAINED, 1, 1, 60.0, (10, 1.0)),
}
