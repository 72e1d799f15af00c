"""Peak resident memory of streams, each in a fresh process of the native runner, with what of it is where.

    python benchmarks/memory.py build/movinet_a0_stream [BUILD ...] [--frames 10000] [--precision fp32,int8] \\
        [--runtime tflite,executorch] [--json FILE] [--plot FILE]

The process is `mvtool-run-tflite` or `mvtool-run-executorch`, without Python. It reads `VmHWM` and `VmRSS` of `/proc/self/status` before it
loads a model, after loading, after the first frame, after frame 100 and at the end. For every artifact it runs

- `kept`: the model's pages stay in memory, as they do where a library maps the file by itself (200 frames);
- `released`: the runner maps the file, and gives its pages back once the weights are packed;
- `writes cache`: the same, and XNNPACK writes its packed weights to a file, as on the first start of an app (200 frames);
- `maps cache`: the same, and maps the file that is there, as on every later start.

A figure is the peak less one of two baselines: what the process held with its library open and no model (`over library`), and the peak of a
process that runs one convolution of the same file (`over one operator`), whose library has more of its own code in memory. The limit is
2 x file + 2 x state + the largest set of tensors that are alive at once (`mvtool.profiling.live_tensors`), and 20 %. It ends with 1
where a TFLite artifact needs more over one operator, `released` and `maps cache`, or where memory grows between frame 100 and the end.

The outputs of 8 frames and the states after them must be the same bytes in all manners, and agree with this machine's session. ExecuTorch's
figures have no limit, and their process holds libtorch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import memory_plot
import numpy as np

from mvtool.android_bench.host import Host, HostWorkspace
from mvtool.bench import mappings
from mvtool.bench.benching import CHECK_STEPS
from mvtool.bench.correctness import Expected, check, expect
from mvtool.bench.device import Runner
from mvtool.bench.frames_file import Feed, feed
from mvtool.bench.placing import place
from mvtool.bench.plan import CHECK_FILE, PLAN_FILE, WEIGHT_CACHE_FILE, Plan
from mvtool.bench.run_result import CountersInKilobytes, RunResult
from mvtool.bench.subjects import MEASURED, Subject, subjects
from mvtool.converters.tflite_graph import Graph
from mvtool.errors import VerificationError
from mvtool.ports import InputPort, OutputPort, PortManifest, Runtime
from mvtool.profiling.live_tensors import largest_live_bytes

EARLY, SHORT = 100, 200
LONGEST_S = 6 * 3600.0
MARGIN = 1.2
MOST_GROWTH_KB = 128
"""Between frame `EARLY` and the end; pages of code that is needed seldom."""
MAPS_FILE = "maps.txt"


@dataclass(frozen=True)
class Manner:
    """How a process holds the model.

    Attributes:
        name: In the tables.
        changes: Of the plan.
        long: Runs all frames.
        judged: Held against the limit.
    """

    name: str
    changes: dict[str, object]
    long: bool = False
    judged: bool = False


KEPT = Manner("kept", {"keep_model_pages": True})
MANNERS = (
    KEPT,
    Manner("released", {}, long=True, judged=True),
    Manner("writes cache", {"weight_cache": WEIGHT_CACHE_FILE}),
    Manner("maps cache", {"weight_cache": WEIGHT_CACHE_FILE}, long=True, judged=True),
)
AS_IT_IS = Manner("as it is", {}, long=True)


@dataclass(frozen=True)
class Limit:
    """What an artifact may need, in KiB.

    Attributes:
        file_kb: Of the artifact.
        state_kb: All states once.
        activations_kb: The largest set of tensors that are alive at once, ports of states apart.
    """

    file_kb: int
    state_kb: int
    activations_kb: int

    @property
    def kb(self) -> int:
        """The sum, with its margin."""
        return int(MARGIN * (2 * self.file_kb + 2 * self.state_kb + self.activations_kb))


@dataclass(frozen=True)
class Row:
    """One artifact in one manner; KiB over what the process held with its library open and no model.

    Attributes:
        artifact: Model, precision and runtime.
        manner: See the module docstring.
        frames: Fed after the frames of the check.
        loaded_kb: Peak until the model was loaded.
        first_kb: Peak until the first frame was answered.
        early_kb: Peak until frame `EARLY`.
        end_kb: Peak of all.
        resident_kb: What was resident at the end; the next ones add up to it.
        model_kb: Pages of the artifact.
        weights_kb: Pages of the file of packed weights.
        code_kb: Pages of the program and its libraries.
        heap_kb: Anonymous memory: weights packed without a file, states, ports, activations, what the runtime knows of the graph.
        load_ms: Time of loading the model.
        call_ms: Median of the runtime's calls; the machine may have been busy.
        growth_kb: The larger of what peak and resident memory grew from frame `EARLY` to the end.
        one_operator_kb: Peak of a process that runs one operator; None where that is not measured.
        limit_kb: What the artifact may need; None where there is no limit.
        includes: What the process holds that an app would not.
    """

    artifact: str
    manner: str
    frames: int
    loaded_kb: int
    first_kb: int
    early_kb: int
    end_kb: int
    resident_kb: int
    model_kb: int
    weights_kb: int
    code_kb: int
    heap_kb: int
    load_ms: float
    call_ms: float
    growth_kb: int
    one_operator_kb: int | None = None
    limit_kb: int | None = None
    includes: tuple[str, ...] = ()

    @property
    def over_one_operator_kb(self) -> int | None:
        """The peak over that of a process that runs one operator."""
        return None if self.one_operator_kb is None else self.end_kb - self.one_operator_kb

    @property
    def flat(self) -> bool:
        """Memory does not grow with the frames."""
        return self.growth_kb <= MOST_GROWTH_KB

    @property
    def failed(self) -> bool:
        """It grows, or needs more than it may."""
        over = self.over_one_operator_kb
        return not self.flat or (over is not None and self.limit_kb is not None and over > self.limit_kb)


@dataclass
class Session:
    """Launches of one artifact in one folder, so that a later one finds the file of packed weights."""

    subject: Subject
    space: HostWorkspace
    runner: Runner
    fed: Feed
    frames: int
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        subject = self.subject
        self.plan = place(
            self.space,
            subject.path,
            subject.ports,
            self.runner,
            self.fed,
            lambda inputs, model, library: Plan(
                subject.ports, model, library, inputs, check_steps=CHECK_STEPS, max_seconds=LONGEST_S, maps=MAPS_FILE
            ),
        )

    def rows(self, manners: Sequence[Manner]) -> Iterator[Row]:
        """One row per manner, after its outputs were checked."""
        dumps: dict[str, bytes] = {}
        for manner in manners:
            frames = self.frames if manner.long else min(SHORT, self.frames)
            result = self.launch(min_invokes=frames, marks=(min(EARLY, frames),), **manner.changes)
            dumps[manner.name] = self.space.get(CHECK_FILE)
            if dumps[manner.name] != dumps[manners[0].name]:
                raise VerificationError(f"{self.subject.name} computes something else when it {manner.name}.")
            yield self._row(manner, frames, result)
        check(self.plan, dumps[manners[0].name], self._expected, "this machine")

    def launch(self, **changes: object) -> RunResult:
        """A fresh process with the plan changed."""
        plan = replace(self.plan, **changes)  # type: ignore[arg-type]
        with tempfile.NamedTemporaryFile("w") as stream:
            stream.write(plan.to_text())
            stream.flush()
            self.space.put(Path(stream.name), PLAN_FILE)
        self.space.execute(self.runner.program.name, (PLAN_FILE,), self.runner.environment, LONGEST_S)
        return RunResult.parse(self.space.get(plan.result), "this machine")

    @cached_property
    def _expected(self) -> Expected:
        return expect(self.subject.path, [self.fed.steps[n % len(self.fed.steps)] for n in range(CHECK_STEPS)])

    def _row(self, manner: Manner, frames: int, result: RunResult) -> Row:
        marks = {mark.at.value: mark for mark in result.memory}
        base, early, end = marks["library"], result.marks[0], marks["end"]
        held = mappings.resident_kb(self.space.get(MAPS_FILE).decode())
        model, weights = held.get(self.plan.model, 0), held.get(WEIGHT_CACHE_FILE, 0)

        def peak(mark: CountersInKilobytes) -> int:
            return mark.vm_hwm_kb - base.vm_rss_kb

        return Row(
            artifact=self.subject.name,
            manner=manner.name,
            frames=frames,
            loaded_kb=peak(marks["loaded"]),
            first_kb=peak(marks["first"]),
            early_kb=peak(early),
            end_kb=peak(end),
            resident_kb=end.vm_rss_kb - base.vm_rss_kb,
            model_kb=model,
            weights_kb=weights,
            code_kb=(end.rss_file_kb or 0) - (base.rss_file_kb or 0) - model - weights,
            heap_kb=(end.rss_anon_kb or 0) - (base.rss_anon_kb or 0),
            load_ms=result.load_ns / 1e6,
            call_ms=float(np.median(result.samples.inference_ns)) / 1e6,
            growth_kb=max(end.vm_hwm_kb - early.vm_hwm_kb, end.vm_rss_kb - early.vm_rss_kb),
            includes=result.memory_includes,
        )


def limit_of(subject: Subject) -> Limit:
    """What a `.tflite` may need."""
    graph = Graph.parse(subject.path.read_bytes())
    ports = subject.ports
    others = {port.position for port in ports.inputs}, {port.position for port in ports.outputs}
    states = [
        tensor
        for side, positions in zip((graph.inputs, graph.outputs), others, strict=True)
        for position, tensor in enumerate(side)
        if position not in positions
    ]
    held = (subject.path.stat().st_size, subject.artifact.state_bytes, largest_live_bytes(graph, states))
    return Limit(*(-(-size // 1024) for size in held))


def one_operator(subject: Subject, folder: Path) -> tuple[Subject, Feed]:
    """The convolution of a `.tflite` with the smallest tensors, as a model of its own, and a picture of zeros for it."""
    graph = Graph.parse(subject.path.read_bytes())

    def elements(operator: Any) -> int:
        return sum(int(np.prod(graph.shape(int(t)))) for t in (*operator.inputs, *operator.outputs) if t >= 0)

    smallest = min((one for one in graph.operators if graph.kind(one) == "CONV_2D"), key=elements)
    source, result = int(smallest.inputs[0]), int(smallest.outputs[0])
    graph.replace_operators([smallest])
    graph.set_ports([("x", source)], [("y", result)])

    def facts(tensor: int) -> dict[str, Any]:
        shape = graph.shape(tensor)
        order = tuple(range(len(shape)))
        same = {"shape": shape, "logical_shape": shape, "permutation": order}
        return {"position": 0, "dtype": graph.dtype(tensor), **same}

    ports = PortManifest(
        model="one_operator",
        runtime=Runtime.TFLITE,
        precision=subject.ports.precision,
        inputs=(InputPort(name="x", **facts(source)),),
        outputs=(OutputPort(name="y", **facts(result)),),
    )
    zeros = np.zeros(ports.inputs[0].shape, ports.inputs[0].dtype)
    path = folder / "one_operator.tflite"
    path.write_bytes(graph.serialise())
    return replace(subject, path=path, ports=ports), Feed("zeros", ((zeros,),))


def measured(subject: Subject, host: Host, frames: int) -> Iterator[Row]:
    """All rows of one artifact."""
    runner = host.runner(subject.ports.runtime)
    if subject.ports.runtime is not Runtime.TFLITE:
        with host.workspace() as space:
            yield from Session(subject, space, runner, feed(subject.ports), frames).rows([AS_IT_IS])
        return
    limit = limit_of(subject).kb
    with tempfile.TemporaryDirectory() as folder, host.workspace() as space:
        alone, zeros = one_operator(subject, Path(folder))
        memory = Session(alone, space, runner, zeros, 1).launch(min_invokes=SHORT, check_steps=0).memory
        base = memory[-1].vm_hwm_kb - next(mark for mark in memory if mark.at == "library").vm_rss_kb
    with host.workspace() as space:
        for manner, row in zip(
            MANNERS, Session(subject, space, runner, feed(subject.ports), frames).rows(MANNERS), strict=True
        ):
            yield replace(row, one_operator_kb=base, limit_kb=limit if manner.judged else None)


def document(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Rows as JSON."""
    return [{**asdict(row), "over_one_operator_kb": row.over_one_operator_kb, "failed": row.failed} for row in rows]


def mib(kb: int | None) -> str:
    """A cell of a table."""
    return "-" if kb is None else f"{kb / 1024:.2f}"


def show(rows: Sequence[Row]) -> None:
    """Print the tables: peaks against the limit, and what is where at the end."""
    print("MiB, peak over the library alone until ..., peak over one operator, limit")
    print(
        f"{'artifact':<38}{'manner':<14}{'loaded':>8}{'first':>8}{'100':>8}{'end':>8}{'over 1':>9}{'limit':>8}  verdict"
    )
    for row in rows:
        peaks = "".join(f"{mib(kb):>8}" for kb in (row.loaded_kb, row.first_kb, row.early_kb, row.end_kb))
        verdict = "-" if row.limit_kb is None else ("MISSED" if row.failed else "holds")
        if row.limit_kb is not None and row.end_kb > row.limit_kb:
            verdict += ", more than the limit over the library alone"
        print(
            f"{row.artifact:<38}{row.manner:<14}{peaks}{mib(row.over_one_operator_kb):>9}{mib(row.limit_kb):>8}  {verdict}"
        )
    print(
        "\nMiB resident at the end over the library alone, by what it is, and growth from frame 100 to the end in KiB"
    )
    print(
        f"{'artifact':<38}{'manner':<14}{'sum':>8}{'model':>8}{'weights':>9}{'heap':>8}{'code':>8}{'frames':>8}{'growth':>8}"
    )
    for row in rows:
        parts = f"{mib(row.resident_kb):>8}{mib(row.model_kb):>8}{mib(row.weights_kb):>9}{mib(row.heap_kb):>8}{mib(row.code_kb):>8}"
        tag = f"  with {', '.join(row.includes)}" if row.includes else ""
        print(f"{row.artifact:<38}{row.manner:<14}{parts}{row.frames:>8}{row.growth_kb:>8}{tag}")


def main() -> int:
    """Measure, print, and say whether all limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--runtime", default=",".join(MEASURED))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.frames < 1:
        parser.error(f"--frames got {arguments.frames}; expected at least 1.")
    chosen = arguments.runtime.split(","), arguments.precision.split(",")
    rows: list[Row] = []
    host = Host()
    for subject in [one for build in arguments.builds for one in subjects(build, *chosen)]:
        for row in measured(subject, host, arguments.frames):
            print(f"{row.artifact}, {row.manner}: {row.end_kb} KiB", file=sys.stderr, flush=True)
            rows.append(row)
            if arguments.json:
                arguments.json.write_text(json.dumps(document(rows), indent=1) + "\n")
    show(rows)
    if arguments.plot:
        memory_plot.plot(document(rows), arguments.plot)
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
