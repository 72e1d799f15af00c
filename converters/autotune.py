"""Try the candidate forms of operators on this machine and keep the fastest.

Some operators have several exact forms (`mvtool.converters.recipe`), and which is fastest depends on the kernels that the library
has for the machine. Each distinct operator is converted alone in every form, as the artifact would hold it, and the files take turns
in the runtime. A form replaces the recipe's only where it is faster by `LEAST_GAIN` and in `MOST_ROUNDS` of the rounds. Then the whole
artifact with the chosen forms is timed against the one without them, and kept only if it is faster too.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, fx, nn

from mvtool.build import SUFFIX_OF_RUNTIME, Trial
from mvtool.converters import places
from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lowering import before_rank, lower
from mvtool.converters.recipe import Forms, Recipe, TemporalForm, recipe_for
from mvtool.converters.rewrites import pack_pixels
from mvtool.converters.rewrites.draft import Draft
from mvtool.converters.rewrites.nodes import argument
from mvtool.converters.rewrites.rank_convolution import is_temporal
from mvtool.ports import AnyArray, Precision, Runtime, StateLayout
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.calibration import CalibrationSet
from mvtool.quantization.shared import save_shared
from mvtool.runtimes import module_of, runtime_of
from mvtool.runtimes.executorch import ExecuTorchExecutable
from mvtool.runtimes.litert import LiteRTExecutable

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from mvtool.converters.jobs import Job
    from mvtool.converters.worker import Made, Stages

aten = torch.ops.aten

Kind = Literal["temporal", "pixels"]
PACKS = (2, 4)
ROUNDS, BLOCK_S, WARM_CALLS = 24, 2e-3, 3
"""Turns of every candidate, seconds of counted calls in one, and calls before them that fill the caches again."""
LEAST_GAIN, WHOLE_GAIN, MOST_ROUNDS = 0.03, 0.0, 0.75
"""A form of an operator must be faster by so much, a whole artifact at all, and in so many of the rounds."""
CALIBRATION_CLIPS, CALIBRATION_STEPS = 2, 3
SHARED = "calibration"
PAIRED = (("past", "output1"),)
"""State of an operator over a queue of frames."""


@dataclass(frozen=True)
class Spot:
    """An operator with several forms.

    Attributes:
        kind: What may differ.
        operator: Its name in the captured program.
        layer: Module path, for people.
        what: Sizes, for people.
        module: The operator alone.
        inputs: Its inputs.
        states: Pairs of states of `module`.
        forms: Names of the forms; the recipe's first.
        key: Equal for operators that take the same time.
    """

    kind: Kind
    operator: str
    layer: str
    what: str
    module: nn.Module
    inputs: tuple[InputSpec, ...]
    states: tuple[tuple[str, str], ...]
    forms: tuple[str, ...]
    key: tuple[object, ...]


@dataclass
class Times:
    """Microseconds per call of one candidate, one median per round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.rounds)

    def beats(self, other: Times, gain: float = LEAST_GAIN) -> bool:
        """Whether this one is faster by `gain`, beyond chance."""
        won = sum(mine < its for mine, its in zip(self.rounds, other.rounds, strict=True))
        return self.median < (1 - gain) * other.median and won >= MOST_ROUNDS * len(self.rounds)


def spots(program: StreamProgram, recipe: Recipe, layout: StateLayout) -> list[Spot]:
    """The operators of a captured program that have several forms under `recipe`."""
    draft, _ = before_rank(program, recipe, layout)
    layers = {node.name: places.layer_of_node(node) for node in draft.module.graph.nodes}
    found = list(_temporal(draft, recipe, layers))
    if recipe.channels_last_ports:
        found += _packable(lower(program, recipe, layout).exported, layers)
    return found


def _temporal(draft: Draft, recipe: Recipe, layers: Mapping[str, str]) -> Iterator[Spot]:
    """Depthwise convolutions over time."""
    for node in draft.module.graph.nodes:
        if node.target is not aten.conv3d.default:
            continue
        weight = draft.constant(argument(node, 1))
        if weight is None or not is_temporal(node, weight):
            continue
        constants = {_buffer(n): draft.constant(n) for n in node.all_input_nodes[1:]}
        alone = _Alone([node], {name: value for name, value in constants.items() if value is not None})
        source = argument(node, 0)
        window = tuple(source.meta["val"].shape)
        added = _added(source)
        key = ("temporal", window, added, tuple(weight.shape), node.args[3:])
        what = f"{weight.shape[2]} frames, {'x'.join(map(str, (window[1], *window[3:])))}"
        others = [form for form in (TemporalForm.DEPTHWISE, TemporalForm.TAPS) if form is not recipe.temporal]
        forms = tuple(str(form) for form in (recipe.temporal, *others))
        layer = layers.get(node.name, "")
        if added is None:
            yield Spot("temporal", node.name, layer, what, alone, (_spec("window", window),), (), forms, key)
            continue
        new, past = (*window[:2], added, *window[3:]), (*window[:2], window[2] - added, *window[3:])
        inputs = (_spec("new", new), _spec("past", past))
        yield Spot("temporal", node.name, layer, what, _Window(alone, added), inputs, PAIRED, forms, key)


def _added(source: fx.Node) -> int | None:
    """New frames behind those of a state in a window; None for a window of another kind."""
    if source.target is not aten.cat.default or argument(source, 1) != 2:
        return None
    *held, new = argument(source, 0)
    if not held or any(node.op != "placeholder" for node in held):
        return None
    return int(new.meta["val"].shape[2])


def _packable(exported: ExportedProgram, layers: Mapping[str, str]) -> Iterator[Spot]:
    """Convolutions whose pixels can be packed, with their padding and activation."""
    for site in pack_pixels.sites(exported):
        forms = tuple(str(pixels) for pixels in PACKS if site.fits(pixels))
        if not forms:
            continue
        chain = [node for node in (argument(site.node, 0), site.node) if node is not site.source]
        chain += pack_pixels.activations(site.node)
        shape = tuple(site.source.meta["val"].shape)
        held = exported.graph_signature.inputs_to_buffers
        names = {n: held[n.name] for node in chain for n in node.all_input_nodes if n.name in held}
        alone = _Alone(chain, {_buffer(node): exported.state_dict[name] for node, name in names.items()})
        outputs, channels, *kernel = site.weight.shape
        what = f"{'x'.join(map(str, kernel))} from {channels} to {outputs}, {'x'.join(map(str, shape[2:]))}"
        settings = tuple((str(node.target), str(_plain(node))) for node in chain)
        key = ("pixels", shape, tuple(site.weight.shape), settings)
        inputs = (_spec("value", shape),)
        layer = layers.get(site.operator, "")
        yield Spot("pixels", site.operator, layer, what, alone, inputs, (), ("1", *forms), key)


def _plain(node: fx.Node) -> list[object]:
    """The arguments of an operator that are no tensors."""
    return [value for value in (*node.args, *node.kwargs.values()) if not isinstance(value, fx.Node)]


def _spec(name: str, shape: Sequence[int]) -> InputSpec:
    return InputSpec(name, tuple(int(size) for size in shape), image=False)


class Tuning:
    """Makes the artifact of a job in the forms that are fastest here.

    Args:
        job: With its target, precision and state layout.
        captured: The program.
        make: `mvtool.converters.worker.artifact`.
        stages: Told what is timed.
    """

    def __init__(
        self, job: Job, captured: StreamProgram, make: Callable[[Job, StreamProgram, Stages], Made], stages: Stages
    ) -> None:
        """Nothing is timed yet."""
        self._job, self._captured, self._make, self._stages = job, captured, make, stages
        self._recipe = recipe_for(Runtime(str(job.target)), Precision(str(job.precision)))

    def run(self) -> Made:
        """Choose, convert, and compare with the artifact without these forms.

        Raises:
            ConversionError: The artifact cannot be written.
        """
        output = Path(str(self._job.output))
        with tempfile.TemporaryDirectory(dir=output.parent, prefix="autotune-") as scratch:
            with self._stages.stage("autotune"):
                forms, trials = self._choose(Path(scratch))
            if not forms:
                return replace(self._make(self._job, self._captured, self._stages), trials=trials)
            plain_job = self._elsewhere(Path(scratch), output.name, Forms())
            plain = self._make(plain_job, self._captured, self._silent())
            made = self._make(self._job.model_copy(update={"forms": forms}), self._captured, self._stages)
            with self._stages.stage("race"):
                before, after = race([Path(str(plain_job.output)), output])
            kept = after.beats(before, WHOLE_GAIN)
            pair = [_trial("whole", "recipe's", before, not kept), _trial("whole", "chosen", after, kept)]
            if not kept:
                made = plain
                self._take(plain_job)
            return replace(made, trials=(*trials, *pair))

    def _choose(self, folder: Path) -> tuple[Forms, tuple[Trial, ...]]:
        chosen: dict[str, dict[str, Any]] = {"temporal": {}, "pixels": {}}
        trials: list[Trial] = []
        groups: dict[tuple[object, ...], list[Spot]] = {}
        for spot in spots(self._captured, self._recipe, self._job.layout):
            groups.setdefault(spot.key, []).append(spot)
        for number, same in enumerate(groups.values()):
            spot = same[0]
            times = self._timed(spot, folder / str(number))
            first = spot.forms[0]
            fastest = min(times, key=lambda form: times[form].median)
            best = fastest if times[fastest].beats(times[first]) else first
            trials += [_trial(spot.kind, form, found, form == best, same) for form, found in times.items()]
            if best != first:
                chosen[spot.kind].update({one.operator: _value(spot.kind, best) for one in same})
        return Forms.model_validate(chosen), tuple(trials)

    def _timed(self, spot: Spot, folder: Path) -> dict[str, Times]:
        """Convert an operator alone in each of its forms, and time the files."""
        folder.mkdir()
        program = capture(spot.module, spot.inputs, ModelInfo(name=spot.kind), state_pairs=spot.states)
        save_shared(program, noise(program), folder / SHARED)
        files = []
        for form in spot.forms:
            name = f"{form}{SUFFIX_OF_RUNTIME[self._recipe.target]}"
            forms = _alone(spot, program, self._recipe, form)
            job = self._elsewhere(folder, name, forms, calibration=str(folder / SHARED), float_layers=())
            self._make(job, program, self._silent())
            files.append(folder / name)
        return dict(zip(spot.forms, race(files), strict=True))

    def _silent(self) -> Stages:
        """Stages that nobody is told of."""
        return type(self._stages)(io.StringIO())

    def _elsewhere(self, folder: Path, name: str, forms: Forms, **more: object) -> Job:
        simulation = None if self._job.simulation is None else str(folder / f"{name}_simulation")
        files = {"output": str(folder / name), "simulation": simulation, "forms": forms, "tune": False}
        return self._job.model_copy(update={**files, **more})

    def _take(self, job: Job) -> None:
        """Put the files of another job in the place of this one's."""
        os.replace(str(job.output), str(self._job.output))
        if job.simulation is not None and self._job.simulation is not None:
            shutil.rmtree(self._job.simulation)
            shutil.move(job.simulation, self._job.simulation)


def _trial(
    kind: Literal["temporal", "pixels", "whole"], form: str, times: Times, chosen: bool, same: Sequence[Spot] = ()
) -> Trial:
    low, high = np.percentile(times.rounds, (25, 75))
    return Trial(
        kind=kind,
        operators=tuple(spot.operator for spot in same),
        layers=tuple(spot.layer for spot in same),
        what=same[0].what if same else "",
        form=form,
        us=times.median,
        low_us=float(low),
        high_us=float(high),
        chosen=chosen,
    )


def race(files: Sequence[Path]) -> list[Times]:
    """Time artifacts in turns."""
    calls = [_call(file) for file in files]
    counts = [max(1, round(BLOCK_S / _seconds(call, WARM_CALLS))) for call in calls]
    times = [Times() for _ in files]
    for number in range(ROUNDS):
        order = range(len(files)) if number % 2 == 0 else reversed(range(len(files)))
        for index in order:
            _seconds(calls[index], WARM_CALLS)
            took = [_seconds(calls[index], 1) for _ in range(counts[index])]
            times[index].rounds.append(1e6 * statistics.median(took))
    return times


def noise(program: StreamProgram) -> CalibrationSet:
    """Calibration of a single operator: only its time counts, so normal numbers do."""
    generator = torch.Generator().manual_seed(0)

    def step() -> tuple[AnyArray, ...]:
        return tuple(torch.randn(port.logical_shape, generator=generator).numpy() for port in program.inputs)

    clips = tuple(tuple(step() for _ in range(CALIBRATION_STEPS)) for _ in range(CALIBRATION_CLIPS))
    return CalibrationSet(clips, bundled=True, origin="normal numbers")


def _alone(spot: Spot, program: StreamProgram, recipe: Recipe, form: str) -> Forms:
    """The form as that of the only operator of `program`, which has a name of its own there."""
    if form == spot.forms[0]:
        return Forms()
    if spot.kind == "temporal":
        (operator,) = (node.name for node in program.exported.graph.nodes if node.target is aten.conv3d.default)
    else:
        (operator,) = (site.operator for site in pack_pixels.sites(lower(program, recipe).exported))
    return Forms.model_validate({spot.kind: {operator: _value(spot.kind, form)}})


def _value(kind: Kind, form: str) -> str | int:
    return form if kind == "temporal" else int(form)


def _call(path: Path) -> Callable[[], object]:
    """A call of an artifact that does nothing but compute."""
    manifest = module_of(runtime_of(path)).read_manifest(path)
    generator = np.random.default_rng(0)
    arrays = [_array(generator, port.shape, port.dtype) for port in manifest.input_ports]
    if manifest.runtime is Runtime.TFLITE:
        return LiteRTExecutable(path, manifest, 1).repeated(arrays)
    return ExecuTorchExecutable(path, 1).repeated(arrays)


def _array(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "int8":
        return generator.integers(-100, 100, shape, dtype=np.int8)
    return np.ones(shape, dtype) if np.dtype(dtype).kind in "iub" else generator.random(shape).astype(dtype)


def _seconds(call: Callable[[], object], times: int) -> float:
    """Seconds per call."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


class _Window(nn.Module):
    """An operator over a queue of past frames and new ones, as a stream holds them."""

    def __init__(self, operator: nn.Module, added: int) -> None:
        super().__init__()
        self.operator, self._added = operator, added

    def forward(self, new: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, T, H, W) of new and of past frames to the result and the next past."""
        window = torch.cat([past, new], 2)
        return self.operator(window), window[:, :, self._added :]


class _Alone(nn.Module):
    """Operators of a graph, each of which reads the one before and constants."""

    def __init__(self, chain: Sequence[fx.Node], constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._chain = list(chain)
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone())

    def forward(self, value: Tensor) -> Tensor:
        """Run them."""
        for node in self._chain:
            values = {n: getattr(self, _buffer(n), value) for n in node.all_input_nodes}
            arguments, named = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            value = node.target(*arguments, **named)  # type: ignore[operator]
        return value


def _buffer(node: fx.Node) -> str:
    return f"constant_{node.name}"
