"""What each rewrite is worth: a model's TFLite artifacts with it and without it, timed in turns in one run.

    python benchmarks/rewrites.py build/movinet_a0_stream [--precision fp32,int8] [--keep DIR] [--json FILE]

The captured program of the build is converted as `mvtool convert` does, and once more for every rewrite with that one left out, or in
another of its forms; int8 is calibrated on the bundled clip. All files of a precision are pinned to one core, one thread, and take turns
in blocks of calls. *Effect* is the median without the rewrite over the median with it, from blocks side by side, with the quartiles of the blocks:
1.10 is 10 % slower without it. Nothing is keyed on the model: any build whose program is there can be given.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from contest import Contestant, measure, median_ms, one_core, tflite

from mvtool.build import Build
from mvtool.converters import lowering, tflite_repairs
from mvtool.converters.jobs import Job
from mvtool.converters.lazy_code import code_when_wanted
from mvtool.converters.lowering import lower
from mvtool.converters.program_io import load_program
from mvtool.converters.recipe import Forms, HardSwishForm, TemporalForm, recipe_for
from mvtool.converters.rewrites import pack_pixels, rank
from mvtool.converters.targets import EMITTERS
from mvtool.converters.worker import Stages
from mvtool.errors import MvtoolError
from mvtool.ports import Precision, Runtime, StateLayout
from mvtool.program import StreamProgram
from mvtool.quantization.shared import save_shared
from mvtool.quantization.sources import load_calibration

AS_CONVERTED = "as converted"
BOTH = (Precision.FP32, Precision.INT8)


@dataclass(frozen=True)
class Variant:
    """One way to convert.

    Attributes:
        name: In the table.
        changes: Of the recipe.
        layout: Of states.
        without: Takes a pass away while it converts.
        precisions: Those for which it differs.
    """

    name: str
    changes: Mapping[str, object] = field(default_factory=dict)
    layout: StateLayout = StateLayout.SHIFT
    without: AbstractContextManager[Any] = field(default_factory=nullcontext)
    precisions: tuple[Precision, ...] = BOTH


def variants(program: StreamProgram) -> list[Variant]:
    """All of them, the artifact as it is converted first."""
    nothing = lambda draft, changes: None
    pointwise = {kind: repair for kind, repair in tflite_repairs.RULES.items() if kind != "CONV_2D"}
    return [
        Variant(AS_CONVERTED),
        Variant("ports channels first", {"channels_last_ports": False}),
        Variant("time as products of frames", {"temporal": TemporalForm.TAPS}),
        Variant("time as stacked channels", {"temporal": TemporalForm.STACKED}),
        Variant("hard-swish as the operator", {"hard_swish": HardSwishForm.KEEP}, precisions=(Precision.INT8,)),
        Variant("clamp(x, 0, 1) as the operator", {"unit_clamp_as_relu6": False}),
        Variant("scalars not folded", without=patch.object(lowering.fold_affine, "fold_affine", nothing)),
        Variant("maps of one channel", without=patch.object(rank, "MOST_OF_A_MAP", 0)),
        Variant("one pixel as CONV_2D", without=patch.object(tflite_repairs, "RULES", pointwise)),
        Variant("two pixels as one", {"forms": Forms(pixels=_first_of(program))}),
        Variant("ring states", layout=StateLayout.RING),
    ]


def _first_of(program: StreamProgram) -> dict[str, int]:
    """The first convolution that can be packed, which is where the channels are fewest."""
    lowered = lower(program, recipe_for(Runtime.TFLITE, Precision.FP32))
    fitting = (site.operator for site in pack_pixels.sites(lowered.exported) if site.fits(2))
    return {operator: 2 for operator in [next(fitting, "")] if operator}


def written(program: StreamProgram, variant: Variant, precision: Precision, folder: Path, shared: Path) -> Path | str:
    """The file, or why there is none."""
    output = folder / f"{variant.name.replace(' ', '_').replace('(', '').replace(')', '')}_{precision}.tflite"
    if output.exists():
        return output
    job = Job(
        kind="emit",
        program="",
        target=Runtime.TFLITE,
        precision=precision,
        output=str(output),
        calibration=str(shared),
    )
    try:
        with variant.without, code_when_wanted(), contextlib.redirect_stdout(io.StringIO()):
            recipe = replace(recipe_for(Runtime.TFLITE, precision), **variant.changes)  # type: ignore[arg-type]
            lowered = lower(program, recipe, variant.layout)
            EMITTERS[Runtime.TFLITE](job, lowered, frozenset(), Stages(io.StringIO()))
    except MvtoolError as error:
        return str(error)
    return output


def row(contestant: Contestant, base: Contestant) -> dict[str, object]:
    """Median, and the effect block by block."""
    pairs = zip(contestant.blocks, base.blocks, strict=True)
    effects = [statistics.median(mine) / statistics.median(its) for mine, its in pairs]
    low, middle, high = (float(value) for value in np.percentile(effects, (25, 50, 75)))
    return {
        "name": contestant.name,
        "median_ms": median_ms(contestant),
        "effect": middle,
        "effect_low": low,
        "effect_high": high,
        "delegates": contestant.delegates,
        "fully_accelerated": contestant.accelerated,
    }


def contests(
    program: StreamProgram, precisions: list[Precision], folder: Path, blocks: int, calls: int
) -> Iterator[tuple[Precision, list[dict[str, object]]]]:
    """Convert all variants, then time those of each precision."""
    shared = folder / "shared"
    save_shared(program, load_calibration(None, program.info, program.inputs, stream=program.is_stream), shared)
    files: dict[Precision, dict[str, Path | str]] = {}
    for precision in precisions:
        files[precision] = {}
        for variant in variants(program):
            if precision in variant.precisions:
                print(f"converting {precision}: {variant.name}", file=sys.stderr, flush=True)
                files[precision][variant.name] = written(program, variant, precision, folder, shared)
    one_core()
    for precision, found in files.items():
        contestants = [tflite(name, path) for name, path in found.items() if isinstance(path, Path)]
        measure(contestants, blocks, calls)
        rows = [row(contestant, contestants[0]) for contestant in contestants]
        yield precision, rows + [{"name": n, "reason": why} for n, why in found.items() if isinstance(why, str)]


def main() -> int:
    """Print a table per precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="folder for the files; those that are there are timed as they are")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    build = Build.load(arguments.build)
    program = load_program(build.path(build.manifest.program))
    precisions = [Precision(name) for name in arguments.precision.split(",")]
    document = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for precision, rows in contests(program, precisions, folder, arguments.blocks, arguments.calls):
            print(f"\n{program.info.name}, TFLite {precision}, one thread, without each rewrite or in another form")
            for one in rows:
                if "reason" in one:
                    print(f"  {one['name']:34} not converted: {one['reason']}")
                    continue
                spread = f"{one['effect_low']:.3f}-{one['effect_high']:.3f}"
                print(
                    f"  {one['name']:34}{one['median_ms']:8.3f} ms  effect {one['effect']:.3f} ({spread})  "
                    f"delegates {one['delegates']}, fully accelerated {one['fully_accelerated']}"
                )
            document[precision.value] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
