"""Accuracy after every step, and how much each artifact loses, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvtool.evaluation.result import Comparison, Evaluation, Share, SubjectAccuracy
from mvtool.extras import require
from mvtool.files import atomic_path
from mvtool.plotting import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(evaluation: Evaluation, target: Path) -> None:
    """Draw an evaluation into a file.

    Args:
        evaluation: What was found.
        target: Its suffix chooses the format.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "to draw plots")
    from matplotlib.figure import Figure

    compared = evaluation.comparisons
    figure = Figure(figsize=(8, 6.4 if compared else 3.8), layout="constrained")
    axes = figure.subplots(2 if compared else 1, 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(
        f"{evaluation.model}: {evaluation.clips} clips of {evaluation.dataset}", fontsize=10, x=0.01, ha="left"
    )
    for colour, subject in zip(COLOURS, evaluation.subjects, strict=False):
        _accuracy(axes[0], subject, colour)
    axes[0].set_ylabel("top-1 (%)")
    axes[0].set_ylim(0, 100)
    names = [subject.name for subject in evaluation.subjects]
    for comparison in compared:
        _drop(axes[1], comparison, COLOURS[names.index(comparison.new) % len(COLOURS)])
    if compared:
        axes[1].axhline(0, color="black", lw=0.8)
        axes[1].set_ylabel("drop of top-1 (points)")
    for place in axes:
        place.grid(alpha=0.3)
        place.spines[["top", "right"]].set_visible(False)
        place.legend(fontsize=8, frameon=False, loc="best")
    unit = "frame" if evaluation.frames_per_step == 1 else f"step of {evaluation.frames_per_step} frames"
    axes[-1].set_xlabel(f"{unit}; bands are 95 % intervals")
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=target.suffix.removeprefix("."))


def _accuracy(axes: Axes, subject: SubjectAccuracy, colour: str) -> None:
    label = f"{subject.name} ({100 * subject.final.top1.value:.1f} % at the end)"
    _band(axes, [step.top1 for step in subject.steps], colour, label)


def _drop(axes: Axes, comparison: Comparison, colour: str) -> None:
    label = f"{comparison.new} beside {comparison.base} ({100 * comparison.final.drop.value:+.2f} at the end)"
    _band(axes, [step.drop for step in comparison.steps], colour, label, dashed=comparison.base.startswith("pytorch"))


def _band(axes: Axes, shares: list[Share], colour: str, label: str, *, dashed: bool = False) -> None:
    steps = range(1, len(shares) + 1)
    axes.plot(steps, [100 * s.value for s in shares], color=colour, label=label, lw=1.6, ls="--" if dashed else "-")
    axes.fill_between(
        steps, [100 * s.low for s in shares], [100 * s.high for s in shares], color=colour, alpha=0.15, lw=0
    )
