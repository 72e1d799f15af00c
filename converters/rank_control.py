"""Ranks of the (2+1)D rewrite that lose no more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from mvtool.converters.accuracy_control import Goal, Judge, fewest
from mvtool.converters.program_io import save_program
from mvtool.converters.progress import Listener, stage
from mvtool.converters.rewrites.factorise import Rank, rewritten
from mvtool.converters.source import Source
from mvtool.evaluation.task import REFERENCE
from mvtool.ports import Precision, Runtime
from mvtool.program import StreamProgram
from mvtool.threads import single_threaded_torch

ENERGIES: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Shares of the energy of a kernel that are tried."""


def cheapest_rank(
    goal: Goal, source: Source, capture: Callable[[Source], StreamProgram], folder: Path, parallel: int, tell: Listener
) -> tuple[Rank, str]:
    """The rank of the (2+1)D rewrite with the least energy of `ENERGIES` for which the goal holds.

    Args:
        goal: What must hold beside the model as it is, both executed by PyTorch.
        source: The model.
        capture: Makes a program of it.
        folder: Scratch.
        parallel: Processes that play clips.
        tell: Told of every evaluation.

    Returns:
        The rank, and what decided in words; all pairs where no fewer hold.
    """
    judge = Judge(goal, folder, parallel, tell)
    program = capture(source)
    ports = program.manifest(Runtime.TFLITE, Precision.FP32)
    save_program(program, folder / "before")
    base = judge.subject(REFERENCE, "before")
    said = f"no rank below all pairs loses at most {100 * goal.max_drop:g} points"

    def holds(number: int) -> bool:
        nonlocal said
        energy = ENERGIES[number - 1]
        name = f"energy_{energy}"
        with stage(tell, f"rewrite at energy {energy}"), single_threaded_torch():
            made, _ = rewritten(source.module, Rank(energy=energy))
            save_program(capture(replace(source, module=made)), folder / name)
        found = judge.drop(ports, judge.subject(f"{REFERENCE}, energy {energy}", name), base)
        if kept := found.value <= goal.max_drop:
            said = (
                f"rank by energy {energy}, which loses {100 * found.value:.2f} points ({100 * found.low:.2f} to {100 * found.high:.2f}) "
                f"on {judge.clips} clips of {goal.dataset}"
            )
        return kept

    number = fewest(len(ENERGIES), holds)
    return (Rank() if number is None else Rank(energy=ENERGIES[number - 1])), said
