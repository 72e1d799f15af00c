"""A picture of a run: the probability of the leading classes over time, under thumbnails of the video."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import UsageError
from mvtool.extras import require
from mvtool.files import atomic_path
from mvtool.running import UNTRAINED, FloatArray, RunHeader, Score, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THUMBNAILS = 9
THUMBNAIL_HEIGHT = 120
"""Pixels; wider frames are cut to the square in their middle."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color)."""
FORMATS = frozenset({".jpeg", ".jpg", ".pdf", ".png", ".svg", ".webp"})


@dataclass
class Timeline:
    """Collects the steps of a run for a plot; memory stays bounded by the number of scores.

    Attributes:
        times_s: Time of each step.
        probabilities: `(classes,)` of each step.
        thumbnails: Time and picture `(h, h, 3)` of some steps, evenly spread.
        names: Class index to label, as far as a label was shown.
        latencies_ms: Time of the model alone in each step.
    """

    times_s: list[float] = field(default_factory=list)
    probabilities: list[FloatArray] = field(default_factory=list)
    thumbnails: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    _stride: int = 1

    def add(self, step: Step) -> None:
        """Keep what the plot needs of `step`."""
        if step.index % self._stride == 0:
            self.thumbnails.append((step.time_s, thumbnail(step.image)))
        if len(self.thumbnails) > 4 * THUMBNAILS:
            self.thumbnails, self._stride = self.thumbnails[::2], 2 * self._stride
        self.times_s.append(step.time_s)
        self.probabilities.append(step.probabilities)
        self.latencies_ms.append(step.latency_ms)
        self.names.update((score.class_index, score.label) for score in step.top)

    @property
    def median_latency_ms(self) -> float:
        """Median time of the model alone; the first steps count, so it is no benchmark."""
        return float(np.median(self.latencies_ms))

    def mean(self, class_index: int) -> float:
        """Mean probability of a class over all steps, 0..1."""
        return float(np.mean([p[class_index] for p in self.probabilities]))

    def leaders(self, count: int) -> list[Score]:
        """The `count` shown classes that reach the highest probability, with that probability."""
        peak = np.max(np.stack(self.probabilities), axis=0)
        best = sorted(self.names, key=lambda index: (-float(peak[index]), index))[:count]
        return [Score(self.names[index], index, float(peak[index])) for index in best]


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The square in the middle of `(H, W, 3)`, every n-th pixel, about `THUMBNAIL_HEIGHT` high."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    stride = max(1, side // THUMBNAIL_HEIGHT)
    return image[top : top + side : stride, left : left + side : stride].copy()


def plot(header: RunHeader, timeline: Timeline, target: Path, *, classes: int = 5) -> None:
    """Draw `timeline` into the file `target`.

    Args:
        header: What was run; names the model and says whether its weights are untrained.
        timeline: At least one step.
        target: File name; its suffix chooses the format.
        classes: Number of lines, at most eight.

    Raises:
        UsageError: The suffix is none that can be drawn, or there is no step.
        MissingExtraError: matplotlib is not installed.
    """
    check_target(target)
    if not timeline.times_s:
        raise UsageError("There is no step to plot; the run ended before the first one.")
    figure = _figure(header, timeline, min(classes, len(COLOURS)))
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110)


def check_target(target: Path) -> None:
    """Refuse a plot file before anything is run.

    Raises:
        UsageError: The suffix is none that can be drawn.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "to draw plots")
    if target.suffix.lower() not in FORMATS:
        raise UsageError(f"{target} has the suffix {target.suffix!r}; plots can be {' '.join(sorted(FORMATS))}.")


def _figure(header: RunHeader, timeline: Timeline, classes: int) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    figure.suptitle(header.title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    grid = figure.add_gridspec(2, THUMBNAILS, height_ratios=(1, 3.1), wspace=0.03)
    _thumbnails([figure.add_subplot(grid[0, column]) for column in range(THUMBNAILS)], timeline)
    _lines(figure.add_subplot(grid[1, :]), header, timeline, classes)
    return figure


def _thumbnails(places: list[Axes], timeline: Timeline) -> None:
    kept = timeline.thumbnails
    chosen = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), len(places))).round().astype(int))
    for place in places:
        place.set_axis_off()
    for place, index in zip(places, chosen, strict=False):
        time_s, image = kept[index]
        place.imshow(image)
        place.set_title(f"{time_s:.1f} s", fontsize=8)


def _lines(axes: Axes, header: RunHeader, timeline: Timeline, classes: int) -> None:
    table = np.stack(timeline.probabilities) * 100
    marker = "o" if len(timeline.times_s) < 40 else None
    leaders = timeline.leaders(classes)
    for colour, leader in zip(COLOURS, leaders, strict=False):
        label = f"{leader.label} (up to {leader.probability:.0%})" if leader.probability > 0.1 else leader.label
        axes.plot(
            timeline.times_s, table[:, leader.class_index], label=label, color=colour, marker=marker, ms=3, lw=1.8
        )
    axes.set_xlabel(f"time in {Path(header.source).name or header.source} (s)")
    axes.set_ylabel("probability (%)")
    axes.set_ylim(0, _ceiling(max(leader.probability for leader in leaders) * 100))
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(3, classes), fontsize=9, frameon=False)
    if header.untrained:
        mark = axes.text(0.5, 0.5, UNTRAINED, transform=axes.transAxes, ha="center", va="center", zorder=0)
        mark.set(fontsize=40, color="#B00000", alpha=0.13, fontweight="bold")


def _ceiling(percent: float) -> float:
    """A round upper end of the axis, a little above the highest line."""
    if percent <= 0:
        return 1.0
    step = math.pow(10.0, math.floor(math.log10(percent * 1.1))) / 2
    return min(100.0, math.ceil(percent * 1.1 / step) * step)
