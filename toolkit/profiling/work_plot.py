"""A picture of several profiles side by side: one bar per file, stacked by kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvtool.files import atomic_path
from mvtool.plotting import COLOURS, check_target
from mvtool.ports import Runtime
from mvtool.profiling.kinds import BETWEEN, KINDS
from mvtool.profiling.record import Profile, Profiles, WorkTime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR_OF_KIND = {**dict(zip(KINDS, COLOURS, strict=False)), BETWEEN: "#BBBBBB"}
HATCH = "////"
READABLE = 0.035
"""Parts of the longest bar below which a time has no room inside its piece."""


def compared(found: Profiles) -> dict[Runtime, list[Profile]]:
    """The profiles that can stand side by side: two or more of one runtime, by runtime."""
    groups: dict[Runtime, list[Profile]] = {}
    for one in found.profiles:
        groups.setdefault(one.runtime, []).append(one)
    return {runtime: group for runtime, group in groups.items() if len(group) > 1}


def plot_work(found: Profiles, target: Path) -> None:
    """Draw the profiles of each runtime that has several.

    Args:
        found: All profiles of a run.
        target: Its suffix chooses the format.

    Raises:
        UsageError: The suffix is none that can be drawn.
        MissingExtraError: matplotlib is not installed.
    """
    check_target(target)
    from matplotlib.figure import Figure

    groups = compared(found)
    bars = sum(map(len, groups.values()))
    figure = Figure(figsize=(11, 1.9 + 0.5 * len(groups) + 0.62 * bars), layout="constrained")
    ratios = [len(group) + 0.8 for group in groups.values()]
    places = figure.subplots(len(groups), 1, height_ratios=ratios, squeeze=False)[:, 0]
    for axes, (runtime, group) in zip(places, groups.items(), strict=True):
        _draw(axes, group)
        axes.set_xlabel(f"ms per call, {runtime}, threads: {group[0].threads}", fontsize=9)
    _legend(figure, [one for group in groups.values() for one in group])
    figure.suptitle(f"{found.model}: time of a call by kind of work, on {found.device}", fontsize=11, x=0.01, ha="left")
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=target.suffix.removeprefix("."))


def _draw(axes: Axes, group: Sequence[Profile]) -> None:
    rows = range(len(group), 0, -1)
    longest = max(sum(part.ms for part in _drawn(one)) for one in group)
    for row, one in zip(rows, group, strict=True):
        start = 0.0
        for part in _drawn(one):
            for ms, outside in ((part.ms - part.outside_ms, False), (part.outside_ms, True)):
                if ms <= 0:
                    continue
                axes.barh(
                    row,
                    ms,
                    left=start,
                    height=0.7,
                    color=COLOUR_OF_KIND[part.kind],
                    hatch=HATCH if outside else None,
                    edgecolor="white",
                    linewidth=0.5,
                )
                if ms > READABLE * longest:
                    _inside(axes, start + ms / 2, row, f"{ms:.2f}")
                start += ms
        axes.annotate(
            _total(one),
            (start, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold",
        )
    axes.set_yticks(rows, [_name(one) for one in group], fontsize=9)
    axes.set_ylim(0.4, len(group) + 0.6)
    axes.set_xlim(0, 1.3 * longest)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _drawn(one: Profile) -> list[WorkTime]:
    """The pieces of a bar; where latency and operators do not agree, what lies between them is not the file's alone."""
    return [part for part in one.work if part.kind != BETWEEN or one.agreement.holds]


def _inside(axes: Axes, x: float, y: float, text: str) -> None:
    label = axes.text(x, y, text, ha="center", va="center", fontsize=8)
    label.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0})


def _name(one: Profile) -> str:
    folder, _, file = one.file.rpartition("/")
    lines = [*([f"{folder}/"] if folder else []), file]
    return "\n".join([*lines, one.precision.value])


def _total(one: Profile) -> str:
    outside = sum(part.outside_operators for part in one.work)
    nodes = "" if one.delegate_nodes is None else f"\n{_count(one.delegate_nodes, 'delegate node')}, {outside} outside"
    if one.agreement.holds:
        return f"{one.latency.median_ms:.3g} ms{nodes}"
    return f"{one.agreement.sum_ms:.3g} ms, operators alone{nodes}\na call {one.latency.median_ms:.3g} ms: no agreement"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _legend(figure: object, shown: Sequence[Profile]) -> None:
    from matplotlib.patches import Patch

    there = {part.kind for one in shown for part in _drawn(one)}
    patches = [Patch(facecolor=COLOUR_OF_KIND[kind], label=kind) for kind in KINDS if kind in there]
    if any(part.outside_ms > 0 for one in shown for part in one.work):
        patches.append(Patch(facecolor="#888888", edgecolor="white", hatch=HATCH, label="outside the delegate"))
    figure.legend(handles=patches, loc="outside lower center", ncols=5, fontsize=9, frameon=False)  # type: ignore[attr-defined]
