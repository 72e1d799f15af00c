"""Telling a rewrite that changes what a model computes from rounding that the model amplifies.

A rewrite adds the terms of sums in another order, so that float32 results differ in their last bits, and a deep network
may multiply that by millions. In float64 the same difference is some 1e-9 times smaller, while a rewrite that is wrong
differs as much as before. So where a rewrite's difference in float32 is over the limit, the passes run once more on the
graph in float64, constants that they compute included, and what they change there decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from mvtool.converters.rewrites import factorise
from mvtool.converters.rewrites.draft import Draft
from mvtool.converters.rewrites.wide import by_default
from mvtool.errors import ConversionError
from mvtool.program import RewriteReport

LARGEST_DIFFERENCE = 1e-4
"""A rewrite that changes results by more than this is a defect of mvtool; in float32 it may be rounding that the model amplifies.

Untrained weights were seen to amplify it by 1e11 on noise, and would a fault of the rewrite as well.
"""


def accepted(draft: Draft, again: Callable[[], Draft]) -> tuple[RewriteReport, ...]:
    """The reports of `draft`, if every rewrite in it changed results by rounding alone.

    Args:
        draft: After all passes.
        again: Runs the same passes on a draft in float64; called only if a difference is too large.

    Raises:
        ConversionError: A rewrite changed the results.
    """
    over = [number for number, report in enumerate(draft.reports) if _is_over(report)]
    if not over:
        return tuple(draft.reports)
    wide, reports = _in_float64(again), list(draft.reports)
    for number in over:
        report = reports[number]
        difference = wide.reports[number].max_difference if wide is not None and _repeats(draft, wide) else None
        if not _is_rounding(report, difference):
            raise ConversionError(_refusal(draft.program.info.name, report, difference))
        sentence = (
            f"rounding: float32 results differ by {report.max_difference:.1e} of the largest value, float64 results by "
            f"{difference:.1e}"
        )
        reports[number] = replace(report, details=(*report.details, sentence))
    return tuple(reports)


def _in_float64(again: Callable[[], Draft]) -> Draft | None:
    try:
        with by_default(torch.float64):
            return again()
    except (RuntimeError, TypeError, ValueError, ConversionError):
        # An operator that takes float32 alone.
        return None


def _is_over(report: RewriteReport) -> bool:
    # Fewer pairs than all are meant to be inexact; that all of them are not was checked when they were made.
    return report.name != factorise.NAME and not report.max_difference <= LARGEST_DIFFERENCE


def _is_rounding(report: RewriteReport, difference: float | None) -> bool:
    return difference is not None and math.isfinite(report.max_difference) and difference <= LARGEST_DIFFERENCE


def _repeats(first: Draft, second: Draft) -> bool:
    """Whether the second run began where the first did and went the same way: no rewrite spoiled the captured weights."""
    names, others = ([report.name for report in draft.reports] for draft in (first, second))
    return names == others and all(map(torch.equal, first.start, second.start))


def _refusal(model: str, report: RewriteReport, difference: float | None) -> str:
    wide = "could not be compared in float64" if difference is None else f"by {difference:.1e} in float64"
    return (
        f"The rewrite {report.name!r} changed the results of {model} by {report.max_difference:.1e} of the largest value "
        f"in float32 and {wide}; at most {LARGEST_DIFFERENCE:.0e} is rounding. Please report this model."
    )
