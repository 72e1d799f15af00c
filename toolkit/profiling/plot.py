"""A picture of a profile: time per type of operator and per layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvtool.files import atomic_path
from mvtool.plotting import COLOURS, check_target
from mvtool.profiling.record import Group, Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TYPES, LAYERS = 14, 24
"""Bars of each half; what is left is one bar more."""


def plot(profile: Profile, model: str, target: Path) -> None:
    """Draw a profile.

    Args:
        profile: Of one artifact.
        model: Its name.
        target: Its suffix chooses the format.

    Raises:
        UsageError: The suffix is none that can be drawn.
        MissingExtraError: matplotlib is not installed.
    """
    check_target(target)
    from matplotlib.figure import Figure

    halves = [(profile.types, TYPES, "type of operator"), (profile.layers, LAYERS, "layer of the PyTorch module")]
    drawn = [_shortened(groups, most) for groups, most, _ in halves]
    figure = Figure(figsize=(10, 1.8 + 0.23 * sum(map(len, drawn))), layout="constrained")
    places = figure.subplots(2, 1, height_ratios=[max(2, len(groups)) for groups in drawn])
    for axes, groups, (_, _, what), colour in zip(places, drawn, halves, COLOURS, strict=False):
        _bars(axes, groups, what, colour)
    how = "the runtime's profiler" if profile.method == "profiler" else "estimated from prefixes"
    figure.suptitle(
        f"{model} {profile.precision}, {profile.runtime}: {profile.latency.median_ms:.3g} ms per call without profiling, "
        f"operators together {profile.agreement.sum_ms:.3g} ms ({how})",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=target.suffix.removeprefix("."))


def _bars(axes: Axes, groups: Sequence[Group], what: str, colour: str) -> None:
    rows = range(len(groups), 0, -1)
    axes.barh(rows, [group.ms for group in groups], color=colour, height=0.75)
    axes.set_yticks(rows, [f"{group.name}  ({group.operators})" for group in groups], fontsize=7)
    for row, group in zip(rows, groups, strict=True):
        axes.annotate(
            f"{group.share:.1%}",
            (max(group.ms, 0.0), row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_ylim(0.3, len(groups) + 0.7)
    axes.set_xlabel(f"ms per call, by {what} (operators in brackets)", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.08)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _shortened(groups: Sequence[Group], most: int) -> list[Group]:
    """The longest groups, and all others as one."""
    if len(groups) <= most + 1:
        return list(groups)
    rest = groups[most:]
    others = Group(
        name=f"{len(rest)} others",
        operators=sum(group.operators for group in rest),
        ms=sum(group.ms for group in rest),
        share=sum(group.share for group in rest),
        macs=sum(group.macs for group in rest),
    )
    return [*groups[:most], others]
