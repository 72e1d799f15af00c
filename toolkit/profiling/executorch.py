"""Profiles of ExecuTorch artifacts, estimated from prefixes.

The runtime of the published wheel has no event tracer. So the program in the file is cut after ever more operators, what is still needed
leaves it as outputs, and an operator takes what the program that ends behind it takes longer than the one that ends before it. Neighbouring
prefixes are timed in turns, in blocks, a few programs at a time; consecutive groups share a prefix. The whole program takes part in every group, and
what it takes there corrects for a machine that was slower or faster meanwhile; where a program still seems faster by an operator more,
neighbours are pooled. XNNPACK pads inside its convolutions, so that no
program ends between the two; what else it fuses is not known, and a prefix ends without what follows: these are estimates.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mvtool.errors import RuntimeLoadError
from mvtool.ports import AnyArray, PortManifest
from mvtool.profiling import pte_graph
from mvtool.profiling.measured import Measured, Timed
from mvtool.profiling.pte_file import Place, PteFile
from mvtool.profiling.record import Latency
from mvtool.profiling.written import Written
from mvtool.runtimes.executorch import ExecuTorchExecutable, read_manifest

BLOCK, WARM, ROUNDS = 20, 3, 9
GROUP = 8
"""Prefixes that are loaded at once: each holds packed weights of its own."""
BUDGET_S = 240.0
"""If all prefixes would take longer, programs are cut in front of layers with weights only, and then at fewer of these."""
SEED = 0
PAD = "StaticConstantPad"
NO_RECORD = "the file does not record why the partitioner left it"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Prefix:
    """A program that ends after some operators; `operators` of them."""

    operators: int
    place: Place


def measure(
    path: Path, threads: int, progress: Progress = lambda done, total: None, budget_s: float = BUDGET_S
) -> Measured:
    """Estimate the time of every operator of a `.pte`.

    Args:
        path: The file.
        threads: Of the runtime.
        progress: Told how many prefixes are timed, of how many.
        budget_s: About how long to measure.

    Raises:
        MissingExtraError: executorch is not installed.
        RuntimeLoadError: The runtime refuses the file, or it cannot be cut.
        ManifestError: It has no port manifest.
    """
    ports = read_manifest(path)
    file = PteFile(path)
    written, places = pte_graph.read(file, ports)
    if not written.operators:
        raise RuntimeLoadError(f"{path} executes no operator. Convert the model again.")
    timer = _Timer(file, ports, threads)
    with _one_core(threads):
        latency = timer.latency(path)
        prefixes, coarse = _chosen(written.operators, places, latency.median_ms, budget_s)
        times, spread = timer.times(prefixes, latency.median_ms, progress)
    steps = np.diff(growing(times))
    timed = [
        _timed(file, written.operators, before.operators, after, (min(low, ms), ms, max(high, ms)))
        for (before, after), ms, low, high in zip(pairwise(prefixes), steps.tolist(), *spread.tolist(), strict=True)
    ]
    notes = ["Estimated from prefixes of the program, because the installed runtime has no event tracer."]
    if coarse:
        notes.append(
            f"Cut at {len(prefixes) - 1} places instead of behind all {len(written.operators)} operators, to be done in time."
        )
    return Measured(written, tuple(timed), latency, "prefixes", None, tuple(notes), float(times[0]))


def _chosen(
    operators: Sequence[Written], places: Sequence[Place | None], latency_ms: float, budget_s: float
) -> tuple[list[_Prefix], bool]:
    """Where to cut; and whether that leaves some operators together for lack of time."""
    padded = _padded(operators)
    every = [_Prefix(n, place) for n, place in enumerate(places, 1) if place is not None and n not in padded]
    # A prefix takes half the latency in the mean and the whole program takes part in each group, and a fifth of a second to be cut and loaded.
    each_s = 0.2 + latency_ms / 1.5e3 * ROUNDS * (BLOCK + WARM)
    affordable = max(2, int(budget_s / each_s))
    chosen = every
    if len(every) > affordable:
        heavy = {index for index, operator in enumerate(operators) if operator.macs is not None}
        chosen = [prefix for prefix in every[:-1] if prefix.operators in heavy]
        stride = -(-len(chosen) // affordable) or 1
        chosen = [*chosen[::stride], every[-1]]
    return [_Prefix(0, Place(0)), *chosen], len(chosen) < len(every)


def _padded(operators: Sequence[Written]) -> set[int]:
    """Numbers of operators after which nothing may end: a padding whose one reader follows and is a convolution."""
    readers = Counter(tensor for operator in operators for tensor in operator.reads)
    return {
        number
        for number, (pad, after) in enumerate(pairwise(operators), 1)
        if pad.kind == PAD and after.macs is not None and pad.writes[0] in after.reads and readers[pad.writes[0]] == 1
    }


class _Timer:
    """Times programs with the ports of one file, fed with noise."""

    def __init__(self, file: PteFile, ports: PortManifest, threads: int) -> None:
        self._file, self._threads = file, threads
        generator = np.random.default_rng(SEED)
        ordered = sorted(ports.input_ports, key=lambda port: port.position)
        self._inputs = [_noise(generator, port.shape, port.dtype) for port in ordered]

    def latency(self, path: Path) -> Latency:
        """The whole file, as it is."""
        run = self._load(path)
        taken = [ns for _ in range(ROUNDS) for ns in _block(run)]
        low, middle, high = (float(value) / 1e6 for value in np.percentile(taken, (25, 50, 75)))
        return Latency(median_ms=middle, low_ms=low, high_ms=high, calls=len(taken))

    def times(self, prefixes: Sequence[_Prefix], latency_ms: float, progress: Progress) -> tuple[AnyArray, AnyArray]:
        """Time all prefixes.

        Returns:
            Milliseconds of each prefix `(prefixes,)`, and the quartiles `(2, prefixes - 1)` of what each takes longer than the one
            before in the rounds.
        """
        found: list[list[float]] = [[] for _ in prefixes]
        spreads = []
        with TemporaryDirectory(prefix="mvtool-profile-") as name:
            for start in range(0, len(prefixes) - 1, GROUP - 1):
                progress(start, len(prefixes) - 1)
                group = prefixes[start : start + GROUP]
                table = self._rounds([*group, prefixes[-1]], Path(name))
                # What disturbs a block only makes it slower, so the quicker rounds say more than the middle one.
                quick = np.percentile(table, 25, axis=0)
                scale = latency_ms / quick[-1]
                for kept, ms in zip(found[start:], quick[:-1], strict=False):
                    kept.append(float(ms * scale))
                spreads.append(np.percentile(np.diff(table[:, :-1], axis=1), (25, 75), axis=0) * scale)
        progress(len(prefixes) - 1, len(prefixes) - 1)
        return np.array([np.mean(kept) for kept in found]), np.concatenate(spreads, axis=1)

    def _rounds(self, group: Sequence[_Prefix], folder: Path) -> AnyArray:
        """Milliseconds `(rounds, prefixes)`, the median of a block each; every other round goes backwards."""
        runs = []
        for index, prefix in enumerate(group):
            path = folder / f"{index}.pte"
            path.write_bytes(self._file.until(prefix.place))
            runs.append(self._load(path))
        table = np.zeros((ROUNDS, len(group)))
        for turn in range(ROUNDS):
            order = range(len(group)) if turn % 2 == 0 else range(len(group) - 1, -1, -1)
            for index in order:
                table[turn, index] = float(np.median(_block(runs[index]))) / 1e6
        return table

    def _load(self, path: Path) -> Callable[[], Any]:
        executable = ExecuTorchExecutable(path, self._threads)
        # The first call prepares the delegates, and tells what is wrong with a program.
        executable.run(self._inputs)
        return executable.repeated(self._inputs)


def _block(run: Callable[[], Any]) -> list[int]:
    """Nanoseconds of each call of a block, without the first calls, which fill the caches again."""
    taken = []
    for _ in range(WARM + BLOCK):
        before = time.perf_counter_ns()
        run()
        taken.append(time.perf_counter_ns() - before)
    return taken[WARM:]


def growing(times: AnyArray) -> AnyArray:
    """The nearest times that never fall: a program does not get faster by an operator more.

    Isotonic regression, by pooling neighbours that fall.

    Example:
        >>> growing(np.array([0.0, 3.0, 2.0, 4.0])).tolist()
        [0.0, 2.5, 2.5, 4.0]
    """
    pools: list[tuple[float, int]] = []
    for time_ms in times:
        pools.append((float(time_ms), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (below, more), (above, count) = pools.pop(), pools.pop()
            pools.append(((above * count + below * more) / (count + more), count + more))
    return np.array([value for value, count in pools for _ in range(count)])


@contextmanager
def _one_core(threads: int) -> Iterator[None]:
    """One processor for one thread, so that it does not move; the process gets its own back."""
    if threads != 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _timed(
    file: PteFile, operators: Sequence[Written], first: int, prefix: _Prefix, ms: tuple[float, float, float]
) -> Timed:
    covered = operators[first : prefix.operators]
    inside = [file.delegate_of(index) is not None for index in _instructions(file, first, prefix.operators)]
    reason = None
    if not all(inside):
        strange = dict.fromkeys(d for o in covered for d in o.dtypes if d.startswith(("int", "bool")) and d != "int8")
        reason = (
            f"its tensors are {', '.join(strange)}; XNNPACK's kernels are for float32 and int8"
            if strange
            else NO_RECORD
        )
    return Timed(
        executed=covered[0].label,
        written=first,
        ms=ms,
        delegated=all(inside),
        reason=reason,
        merged=len(covered),
    )


def _instructions(file: PteFile, first: int, last: int) -> set[int]:
    """Instructions that hold the operators from `first` on and before `last`."""
    found, position = set(), 0
    for index, call in enumerate(file.instructions):
        graph = file.delegate_of(index)
        count = len(graph.nodes) if graph is not None else int(hasattr(call, "op_index"))
        if position < last and position + count > first:
            found.add(index)
        position += count
    return found


def _noise(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> AnyArray:
    if dtype.startswith("float"):
        return np.asarray(generator.random(shape, dtype=np.float32)).astype(dtype)
    return np.asarray(generator.integers(0, 2 if dtype == "bool" else 100, shape)).astype(dtype)
