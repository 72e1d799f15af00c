"""Time per operator of a `.tflite` on the host, and per kind of operator.

    python benchmarks/tflite_profile.py build/x3d_m/x3d_m_int8.tflite --runs 10 --json profile.json

The times are XNNPACK's own, from inside the delegate; one thread, pinned to one core, untimed runs before. Each operator
of the graph has its median over the runs. Printed are the sums of these medians by kind and by XNNPACK's name, with the
calls per inference, and the slowest single operators with what they compute and how fast. Shares are of the sum.

What to know when reading them:

- XNNPACK gives whole microseconds, cut off, so that small operators read 0 and the operators of a small network add
  up to clearly less than the inference. What is missing is the line `between operators`.
- XNNPACK rewrites graphs: a 1x1 convolution with stride 1 is called `Fully Connected`, a pad before a convolution is
  part of it, and int8 functions that became one table look-up are called `Invalid Unary Op`.
- The shapes are not from the profiler. Convolutions and fully connected operators are matched with those of the file
  by their order, if there are as many; otherwise there are no shapes and a kind is told by the name alone.
- An activation that is fused into a convolution is timed with it.
- What no delegate took is listed with TFLite's name, as `outside the delegate`.

Needs ai-edge-litert 2.3.0, whose profiler is read through its C interface, see `litert_profiler`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contest import one_core
from litert_profiler import Inference, ProfiledModel, Timed

POINTWISE = "convolutions 1x1, fully connected"
DEPTHWISE = "depthwise convolutions"
CONVOLUTION = "other convolutions"
MOVES = ("Transpose", "Pad (", "Slice", "Reshape", "Copy (", "Concat", "Split", "Expand Dims", "Fuse Dims")
RESIZES = ("Resize", "Depth To Space", "Space To Depth", "Unpooling")
KINDS = (
    (DEPTHWISE, ("DWConv",)),
    (POINTWISE, ("Fully Connected",)),
    (CONVOLUTION, ("Convolution", "Deconvolution")),
    ("other matrix products", ("Batch Matrix Multiply",)),
    ("mean, pooling, softmax", ("Mean (", "Mean Squared", "Sum (", "Reduce", "Pooling", "Softmax")),
    ("data movement", MOVES + RESIZES),
    ("quantize, dequantize", ("Convert",)),
    ("elementwise", ("(ND)", "(NC)", "Invalid Unary Op")),
)
OTHER = "other"
OUTSIDE = "outside the delegate"
BETWEEN = "between operators"
MATCHED = (
    ((DEPTHWISE,), ("DEPTHWISE_CONV_2D",)),
    ((POINTWISE, CONVOLUTION), ("CONV_2D", "FULLY_CONNECTED")),
)


@dataclass(frozen=True)
class Work:
    """What a convolution or fully connected operator of the file computes.

    Attributes:
        kernel: Height and width.
        shapes: Of input and result, as text.
        macs: Multiply-accumulates.
    """

    kernel: tuple[int, int]
    shapes: str
    macs: int


@dataclass(frozen=True)
class Row:
    """One operator of the executed graph with its median time."""

    position: int
    name: str
    kind: str
    median_ms: float
    work: Work | None


def kind_of(operator: Timed) -> str:
    """The kind of an operator by its name alone."""
    if not operator.delegated:
        return OUTSIDE
    return next((kind for kind, parts in KINDS if any(part in operator.name for part in parts)), OTHER)


def works(path: Path, operators: Sequence[Timed]) -> list[Work | None]:
    """What each executed operator computes, by order; None for all others, and where the file has more or fewer."""
    from mvtool.converters.tflite_graph import Graph

    graph = Graph.parse(path.read_bytes())
    found: list[Work | None] = [None] * len(operators)
    for kinds, written_kinds in MATCHED:
        executed = [index for index, operator in enumerate(operators) if kind_of(operator) in kinds]
        written = [operator for operator in graph.operators if graph.kind(operator) in written_kinds]
        if len(executed) == len(written):
            for index, operator in zip(executed, written, strict=True):
                found[index] = _work(graph, operator)
    return found


def _work(graph: Any, operator: Any) -> Work:
    """A weight is (outputs, height, width, inputs), (1, height, width, channels) or (outputs, inputs)."""
    x, weight, y = (graph.shape(int(tensor)) for tensor in (*operator.inputs[:2], operator.outputs[0]))
    kernel = (weight[1], weight[2]) if len(weight) == 4 else (1, 1)
    depth = 1 if graph.kind(operator) == "DEPTHWISE_CONV_2D" else weight[-1]
    shapes = f"{'x'.join(map(str, x))} -> {'x'.join(map(str, y))}"
    return Work(kernel, shapes, math.prod(y) * math.prod(kernel) * depth)


def rows(path: Path, inferences: Sequence[Inference]) -> list[Row]:
    """One row per operator in order of execution.

    Raises:
        RuntimeError: The inferences did not run the same operators.
    """
    operators = inferences[0].operators
    names = [operator.name for operator in operators]
    if any([operator.name for operator in other.operators] != names for other in inferences[1:]):
        raise RuntimeError("the profiled inferences ran different operators, expected the same in each; profile again")
    found = []
    for index, (operator, work) in enumerate(zip(operators, works(path, operators), strict=True)):
        kind = kind_of(operator)
        if kind == CONVOLUTION and work is not None and work.kernel == (1, 1):
            kind = POINTWISE
        median = statistics.median(inference.operators[index].ms for inference in inferences)
        found.append(Row(index, operator.name, kind, median, work))
    return found


def between_ms(inferences: Sequence[Inference]) -> float:
    """Median of what an inference took beside its operators."""
    return statistics.median(run.ms - sum(operator.ms for operator in run.operators) for run in inferences)


def grouped(table: Sequence[Row], between: float, key: Callable[[Row], str]) -> list[dict[str, Any]]:
    """Sums of the operators' medians by key, longest first; they add up, and an interrupted run spoils none of them."""
    members: dict[str, list[float]] = defaultdict(list)
    for row in table:
        members[key(row)].append(row.median_ms)
    sums = {name: sum(values) for name, values in members.items()} | {BETWEEN: between}
    return [
        {"name": name, "calls": len(members[name]), "ms": ms, "share": ms / sum(sums.values())}
        for name, ms in sorted(sums.items(), key=lambda item: -item[1])
    ]


def profile(path: Path, runs: int, warm_runs: int) -> dict[str, Any]:
    """Everything this program prints about one file."""
    model = ProfiledModel(path)
    for _ in range(warm_runs):
        model.run()
    inferences = [model.profile() for _ in range(runs)]
    table = rows(path, inferences)
    between = between_ms(inferences)
    whole = sorted(inference.ms for inference in inferences)
    return {
        "file": path.name,
        "runs": runs,
        "fully_accelerated": model.fully_accelerated,
        "inference_ms": {"median": statistics.median(whole), "min": whole[0], "max": whole[-1]},
        "kinds": grouped(table, between, lambda row: row.kind),
        "names": grouped(table, between, lambda row: row.name),
        "operators": [asdict(row) for row in table],
    }


def print_profile(found: dict[str, Any], slowest: int) -> None:
    """The profile as text."""
    ms = found["inference_ms"]
    print(f"{found['file']}: median {ms['median']:.2f} ms, {ms['min']:.2f} to {ms['max']:.2f}, {found['runs']} runs")
    print("" if found["fully_accelerated"] else "not fully delegated\n")
    for title in ("kinds", "names"):
        print(f"{title:46}{'calls':>6}{'ms':>9}{'share':>8}")
        for row in found[title]:
            print(f"{row['name']:46}{row['calls'] or '':>6}{row['ms']:9.3f}{row['share']:8.1%}")
        print()
    print(f"{'slowest operators':52}{'ms':>8}{'GMAC/s':>8}  kernel, shapes")
    for row in sorted(found["operators"], key=lambda row: -row["median_ms"])[:slowest]:
        print(f"{row['position']:4}  {row['name']:46}{row['median_ms']:8.3f}{_rate(row)}")
    print(flush=True)


def _rate(row: dict[str, Any]) -> str:
    work = row["work"]
    if work is None or not row["median_ms"]:
        return ""
    return f"{work['macs'] / row['median_ms'] / 1e6:8.1f}  {work['kernel'][0]}x{work['kernel'][1]}, {work['shapes']}"


def main() -> int:
    """Profile the files one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=10, help="inferences that count")
    parser.add_argument("--warm-runs", type=int, default=3, help="inferences before them that do not")
    parser.add_argument("--slowest", type=int, default=12, help="single operators to print")
    parser.add_argument("--json", type=Path, help="where to write everything")
    arguments = parser.parse_args()
    missing = [str(path) for path in arguments.files if not path.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    one_core()
    profiles = [profile(path, arguments.runs, arguments.warm_runs) for path in arguments.files]
    for found in profiles:
        print_profile(found, arguments.slowest)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(profiles, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
