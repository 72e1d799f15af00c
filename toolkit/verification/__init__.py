"""Verification: every artifact of a build is executed and held against the trained model.

    verify(path) -> Verification      run it
    render(verification)              show it, a `rich` renderable

Each artifact is examined in a process of its own (`worker`), in lockstep with the PyTorch stream, which
runs once in the parent (`lockstep`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvtool.verification.report import Verification

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Verification", "render", "verify"]


def verify(path: str | Path, **options: Any) -> Verification:
    """Execute every artifact of the build at `path`; see `mvtool.verification.run.verify` for the options."""
    from mvtool.verification.run import verify as run

    return run(path, **options)


def render(verification: Verification, verbose: bool = False) -> RenderableType:
    """Tables of a verification; see `mvtool.verification.show`."""
    from mvtool.verification.show import tables

    return tables(verification, verbose)
