"""torch.export with errors that name the place in the user's code."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mvtool.converters import capture_checks, places
from mvtool.converters.calling import CallPlan
from mvtool.errors import CaptureError

_DATA_DEPENDENT = (
    "GuardOnDataDependent",
    "data-dependent",
    "data dependent",
    "Could not guard on",
    "Could not extract specialized integer",
)


def export_functional(module: nn.Module, plan: CallPlan, tensors: Sequence[Tensor]) -> ExportedProgram:
    """Export one step and make the graph functional.

    Only what functionalization needs is decomposed: convolutions, pools and activations stay the
    operators that the module called, so that later passes recognise them.

    Args:
        module: In eval mode.
        plan: How to call it.
        tensors: One example per input spec.

    Raises:
        CaptureError: torch.export refuses the module, or the graph holds what no artifact may hold.
    """
    arguments, keywords = plan.arguments([tensor.clone() for tensor in tensors])
    with torch.no_grad(), _quiet():
        try:
            exported = torch.export.export(module, arguments, keywords, strict=False)
        except Exception as error:
            raise _explain(error, module) from error
        capture_checks.check_graph(exported)
        try:
            return exported.run_decompositions({})
        except Exception as error:
            raise _explain(error, module) from error


def _explain(error: Exception, module: nn.Module) -> CaptureError:
    text = f"{type(error).__name__}: {error}"
    place = places.of_error(error, module)
    if any(sign in text for sign in _DATA_DEPENDENT):
        return CaptureError(
            f"The model's control flow or shapes depend on the values of a tensor {place}: {_first(error)}. A graph has one "
            "path for every frame: compute both sides and choose with torch.where, and avoid .item(), bool(tensor) and nonzero."
        )
    return CaptureError(
        f"torch.export cannot turn the model into a graph {place}: {type(error).__name__}: {_first(error)}."
    )


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no message"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's own deprecation warnings and its log lines; what matters becomes an error of ours."""
    log = logging.getLogger("torch")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
