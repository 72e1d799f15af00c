"""The main road: a model in, a verified-able build folder out.

    load -> capture -> [calibrate] -> one process per artifact: lower -> [quantize] -> emit -> golden

The build is assembled in a folder beside its destination and takes its place in one rename, so an
interrupted conversion leaves the previous build as it was.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mvtool import labels as label_lists
from mvtool.build import PROGRAM_FOLDER, REFERENCE_FOLDER, STATE_RANGES_FILE, Build, artifact_file_name
from mvtool.converters import warm
from mvtool.converters.accuracy_control import Control, Goal
from mvtool.converters.destination import (
    check_destination,
    check_replaceable,
    destination_of,
    partial_of,
    work_folder,
)
from mvtool.converters.inputs import InputSpec, picture_of
from mvtool.converters.jobs import Job, JobResult
from mvtool.converters.progress import Listener, stage
from mvtool.converters.recipe import NO_FORMS, RECIPES, Forms, recorded_recipe
from mvtool.converters.supervisor import JobFailure, Outcome, Supervisor
from mvtool.converters.times import Times
from mvtool.datasets.spec import is_generator
from mvtool.errors import (
    CaptureError,
    ConversionError,
    MissingExtraError,
    MvtoolError,
    RuntimeLoadError,
    StorageError,
    UsageError,
    VerificationError,
    VideoError,
)
from mvtool.extras import EXTRA_OF_PACKAGE
from mvtool.files import atomic_path
from mvtool.ports import AnyArray, Precision, Preprocessing, Runtime, StateLayout
from mvtool.preprocessing import plain
from mvtool.threads import single_threaded_torch

if TYPE_CHECKING:
    from torch import nn

    from mvtool.converters.rewrites.factorise import Rank
    from mvtool.converters.source import Source
    from mvtool.forking import Template
    from mvtool.program import ModelInfo, StreamProgram

STAGE_TIMEOUT_S = 600.0
CALIBRATE, SHARED = "calibrate", "shared"
_LOG = logging.getLogger(__name__)
# Rough cost of a job, longest first, so that two processes end at about the same time.
_COST = {Runtime.EXECUTORCH: 3, Runtime.TFLITE: 2, Runtime.COREML: 1}
# Errors of a worker that keep their class, and so their exit code, on the way to the user.
_ERROR_CLASSES: dict[str, type[MvtoolError]] = {
    kind.__name__: kind
    for kind in (UsageError, VideoError, RuntimeLoadError, CaptureError, StorageError, VerificationError)
}
_PURPOSES = {
    Runtime.TFLITE: (("litert_torch", "ai_edge_litert"), "to write TFLite files"),
    Runtime.COREML: (("coremltools",), "to write Core ML packages"),
    Runtime.EXECUTORCH: (("executorch",), "to write ExecuTorch programs"),
}
_WHY_NOT = {
    Precision.FP16: "these runtimes choose half precision on the phone",
    Precision.INT8_DYNAMIC: "Core ML rounds no activations at run time; int8 and int8-weights are its forms with int8 weights",
}
"""Why a runtime has no recipe for a precision."""
_Closed = TypeVar("_Closed", Runtime, Precision, StateLayout)


@dataclass(frozen=True)
class Request:
    """What to convert, and to what.

    Attributes:
        artifacts: Target and precision of each file.
        clips: The user's calibration data.
        stage_timeout_s: Longest time of one stage of a worker.
        parallel: Worker processes at a time.
        options: What the manifest says of the conversion.
        goal: Accuracy that int8 must keep.
        layout: How artifacts hold queues of past frames.
        tune: Time the forms of operators and choose.
        forms: Of single operators by target and precision, from another build.
    """

    artifacts: tuple[tuple[Runtime, Precision], ...]
    clips: Path | None
    stage_timeout_s: float
    parallel: int
    options: Mapping[str, object]
    goal: Goal | None = None
    layout: StateLayout = StateLayout.SHIFT
    tune: bool = False
    forms: Mapping[tuple[Runtime, Precision], Forms] = field(default_factory=dict)

    @property
    def int8(self) -> bool:
        """Whether anything is to be calibrated."""
        return any(precision is Precision.INT8 for _, precision in self.artifacts)


def convert(
    model: str | os.PathLike[str] | nn.Module,
    *,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    targets: Sequence[str] = ("tflite", "coreml", "executorch"),
    precisions: Sequence[str] = ("fp32",),
    out: str | os.PathLike[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    inputs: Sequence[InputSpec] = (),
    kwargs: Mapping[str, object] | None = None,
    states: Sequence[tuple[str, str]] = (),
    initial: Mapping[str, float | AnyArray] | None = None,
    forward_kwargs: Mapping[str, object] | None = None,
    gate: str | None = None,
    num_classes: int | None = None,
    resolution: int | tuple[int, int] | None = None,
    frames: int | None = None,
    labels: str | None = None,
    rewrite: str | None = None,
    max_drop: float | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    state_layout: str = "shift",
    autotune: bool = False,
    recipe: str | os.PathLike[str] | None = None,
    stage_timeout_s: float = STAGE_TIMEOUT_S,
    parallel: int | None = None,
    listener: Listener | None = None,
) -> Build:
    """Convert a model to artifacts for phones.

    Args:
        model: Name in the zoo, `package.module:factory`, path of a `.pt2` file, or a module.
        weights: Weight file, or one per member of an ensemble. A zoo model without weights is filled
            deterministically and marked as untrained.
        targets: Any of `tflite`, `coreml`, `executorch`.
        precisions: Any of `fp32`, `fp16`, `int8`, `int8-dynamic`, `int8-weights`; fp16 exists for Core ML only, int8-dynamic
            for the others only.
        out: Build folder; `build/<model>` by default. An existing build there is replaced.
        calibration: For int8: folder of videos, of images per clip, `.npy`, or a generator as in `mvtool.datasets.spec`; by
            default the clips that the model names, else the bundled one.
        inputs: Shapes of the inputs of a model that is not of the zoo.
        kwargs: Keyword arguments of the factory.
        states: `(input, output)` names of states that the model takes and returns as tensors.
        initial: First value of such states by the name of the input; 0 where nothing is given.
        forward_kwargs: Arguments of `forward` that are not tensors.
        gate: Squeeze-excite gate of imported MoViNet streams.
        num_classes: Width of the logits of a zoo model, where it is not the published one.
        resolution: Pixels of height and width of a zoo model's pictures, or both, where they are not the published ones.
        frames: Frames per call of a zoo model: of the clip, or of one step of a stream.
        labels: `kinetics600`, `kinetics400`, or a text file with one label per line, which goes into the manifests.
        rewrite: `2plus1d` or `2plus1d:RANK`, see `mvtool.converters.rewrites.factorise`: the model is changed before it is captured, so
            the artifacts are verified against the changed one.
        max_drop: Largest drop of top-1 that int8 may cost, a share: layers return to float until it holds, see
            `mvtool.converters.accuracy_control`. It chooses the rank of `2plus1d` too, where none is given.
        evaluation: Labelled videos that the drop is counted on, see `mvtool.datasets.spec`.
        preprocessing: From camera bytes to the picture input of a model that is not of the zoo. By default RGB / 255 at
            the input's size.
        state_layout: `shift`: a queue of past frames is one port, which the graph shifts; `ring`: each of its frames is a port,
            the graph gives the newest and the app moves pointers, see `mvtool.ports.RingBinding`.
        autotune: Time the forms that operators may have on this machine and keep the fastest, see `mvtool.converters.autotune`;
            one worker at a time then.
        recipe: Build folder of the same model whose forms of operators are used again.
        stage_timeout_s: Longest time of one stage in one worker.
        parallel: Worker processes at a time; the number of cores by default, at most 4.
        listener: Told of every stage.

    Returns:
        The build on disk.

    Raises:
        SourceError: The model cannot be found, imported or built.
        WeightsError: The weights do not fit.
        CaptureError: The module cannot become a graph with explicit state.
        ConversionError: An artifact could not be written. Those that could are kept; the message says where.
        UsageError: An unknown target or precision, options that contradict each other, or an `out` that is in use.
        VerificationError: The drop cannot be held.
        StorageError: A file cannot be written.
    """
    tell = Times(listener or (lambda event: None))
    request = _request(targets, precisions, calibration, stage_timeout_s, parallel, gate, labels, rewrite)
    request = replace(request, goal=_goal(request, max_drop, evaluation))
    (layout,) = _each(StateLayout, "state layout", [state_layout])
    if layout is not StateLayout.SHIFT:
        request = replace(request, layout=layout, options={**request.options, "state_layout": layout.value})
    request = _with_forms(request, autotune, recipe)
    if out is not None:
        check_destination(destination_of(out, ""))
    threads = max(1, (os.cpu_count() or 1) // request.parallel)
    with warm.template((target for target, _ in request.artifacts), threads) as template:
        with stage(tell, "load"):
            chosen = {"num_classes": num_classes, "resolution": resolution}
            given = {name: value for name, value in chosen.items() if value is not None}
            if twice := sorted(given.keys() & (kwargs or {}).keys()):
                raise UsageError(
                    f"{', '.join(twice)} is given twice, as an option and among the factory's arguments; give it once."
                )
            arguments = {**(kwargs or {}), **given}
            source = _load(model, weights, arguments, gate, frames, labels)
        destination = destination_of(out, source.info.name)
        check_destination(destination)

        def take(one: Source) -> StreamProgram:
            return _capture(one, inputs, states, preprocessing, initial, forward_kwargs)

        factoring = _factoring(request, rewrite, source, take, tell)
        with stage(tell, "capture"), single_threaded_torch():
            program = take(source) if factoring is None else _factorised(source, take, *factoring)
        _check_labels(program, labels)
        with work_folder(destination) as work:
            staging = work / "build"
            outcomes = _run_jobs(request, program, staging, work / "jobs", tell, template)
            if request.goal is not None:
                outcomes = _controlled(request, request.goal, program, staging, work, outcomes, tell, template)
            return _finish(request, source, program, staging, destination, outcomes, tell, template)


def _request(
    targets: Sequence[str],
    precisions: Sequence[str],
    calibration: str | os.PathLike[str] | None,
    stage_timeout_s: float,
    parallel: int | None,
    gate: str | None,
    labels: str | None,
    rewrite: str | None,
) -> Request:
    runtimes, wanted = _each(Runtime, "target", targets), _each(Precision, "precision", precisions)
    artifacts = _existing(runtimes, wanted)
    for target, _ in artifacts:
        _require_packages(target)
    clips = None if calibration is None else Path(calibration)
    if clips is not None and Precision.INT8 not in wanted:
        raise UsageError("--calibration is for int8; add --int8 or --precision int8.")
    options = {
        "gate": gate,
        "labels": labels and Path(labels).name,
        "calibration": clips.name if clips else None,
        "rewrite": rewrite,
    }
    workers = parallel or min(4, os.cpu_count() or 1)
    return Request(artifacts, clips, stage_timeout_s, workers, {k: v for k, v in options.items() if v is not None})


def _with_forms(request: Request, autotune: bool, recipe: str | os.PathLike[str] | None) -> Request:
    """The request with forms of operators to be timed, or those of another build."""
    if autotune and recipe is not None:
        raise UsageError("autotune and a recipe of another build contradict each other; give one of them.")
    if autotune:
        return replace(request, tune=True, parallel=1, options={**request.options, "autotune": True})
    if recipe is None:
        return request
    build = Build.load(Path(recipe))
    forms = {
        (entry.runtime, entry.precision): recorded_recipe(entry.runtime, entry.precision, entry.recipe).forms
        for entry in build.manifest.artifacts
    }
    return replace(request, forms=forms, options={**request.options, "recipe": build.folder.name})


def _goal(request: Request, max_drop: float | None, evaluation: str | os.PathLike[str] | None) -> Goal | None:
    goal = Goal.of(max_drop, None if evaluation is None else str(evaluation))
    if goal is not None and not request.int8 and request.options.get("rewrite") != "2plus1d":
        raise UsageError(
            "--max-drop is for int8 and for --rewrite 2plus1d; add one of them, --int8 or --precision int8."
        )
    return goal


def _existing(runtimes: Sequence[Runtime], wanted: Sequence[Precision]) -> tuple[tuple[Runtime, Precision], ...]:
    """The pairs that have a recipe; a warning says why others have no file.

    Raises:
        UsageError: None of them has one.
    """
    lacking = {p: [str(t) for t in runtimes if (t, p) not in RECIPES] for p in wanted}
    reasons = [
        f"No {precision} file is written for {', '.join(targets)}: {_WHY_NOT[precision]}."
        for precision, targets in lacking.items()
        if targets
    ]
    artifacts = tuple((t, p) for t in runtimes for p in wanted if (t, p) in RECIPES)
    if not artifacts:
        known = sorted({str(p) for t, p in RECIPES if t in runtimes})
        raise UsageError(f"{' '.join(reasons)} These targets have {', '.join(known)}; add one of them.")
    for reason in reasons:
        _LOG.warning(reason)
    return artifacts


def _require_packages(target: Runtime) -> None:
    """Fail before any work is done; a worker would find out minutes later."""
    packages, purpose = _PURPOSES[target]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, EXTRA_OF_PACKAGE[package], purpose)


def _each(kind: type[_Closed], what: str, names: Sequence[str]) -> list[_Closed]:
    chosen: list[_Closed] = []
    for name in [names] if isinstance(names, str) else names:
        try:
            value = kind(name)
        except ValueError as error:
            known = ", ".join(member.value for member in kind)
            raise UsageError(f"Unknown {what} {name!r}; known: {known}.") from error
        if value not in chosen:
            chosen.append(value)
    if not chosen:
        raise UsageError(f"No {what} was given.")
    return chosen


def _load(
    model: str | os.PathLike[str] | nn.Module,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    arguments: Mapping[str, object],
    gate: str | None,
    frames: int | None,
    labels: str | None,
) -> Source:
    from mvtool.converters import source

    loaded = source.load(model, weights=weights, arguments=arguments or None, gate=gate, frames=frames)
    return loaded if labels is None else replace(loaded, info=_labelled(loaded.info, labels))


def _factoring(
    request: Request, rewrite: str | None, source: Source, take: Callable[[Source], StreamProgram], tell: Listener
) -> tuple[Rank, str] | None:
    """The rank of a rewrite that was asked for, and why it was chosen where the accuracy decided."""
    if rewrite is None:
        return None
    from mvtool.converters.rewrites import factorise

    if request.goal is None or rewrite != factorise.NAME:
        return factorise.parse(rewrite), ""
    from mvtool.converters.rank_control import cheapest_rank

    with tempfile.TemporaryDirectory(prefix="mvtool-rank-") as scratch:
        return cheapest_rank(request.goal, source, take, Path(scratch), request.parallel, tell)


def _factorised(source: Source, take: Callable[[Source], StreamProgram], rank: Rank, why: str) -> StreamProgram:
    """The program of a model whose kernels were factored before."""
    from mvtool.converters.rewrites import factorise

    module, report = factorise.rewritten(source.module, rank)
    program = take(replace(source, module=module))
    judged = factorise.judged(report, rank, take(source), program)
    details = (why, *judged.details) if why else judged.details
    return program.replace(rewrites=(replace(judged, details=details), *program.rewrites))


def _labelled(info: ModelInfo, labels: str) -> ModelInfo:
    if labels in label_lists.BUNDLED:
        return replace(info, labels=labels, class_names=())
    return replace(info, labels=Path(labels).stem, class_names=label_lists.load(labels))


def _check_labels(program: StreamProgram, labels: str | None) -> None:
    """A list that was asked for must have one label per score."""
    sizes = {port.name: math.prod(port.logical_shape) for port in program.outputs}
    count = len(program.info.class_names or label_lists.load(labels)) if labels is not None else 0
    if labels is not None and count not in sizes.values():
        raise UsageError(
            f"The label list {labels!r} holds {count} labels, and {program.info.name!r} gives {sizes} values. "
            "Give a list of as many labels as the model has classes."
        )


def _capture(
    source: Source,
    inputs: Sequence[InputSpec],
    states: Sequence[tuple[str, str]],
    preprocessing: Preprocessing | None,
    initial: Mapping[str, float | AnyArray] | None,
    forward_kwargs: Mapping[str, object] | None,
) -> StreamProgram:
    from mvtool.converters.capture import capture

    if inputs and source.info.preprocessing is not None:
        raise UsageError(
            f"{source.origin} says the shape of its input itself, {_shapes(source.inputs)}; --input is for other models. "
            "Choose another picture size with --resolution, and another number of frames per call with --frames."
        )
    specs = tuple(inputs) or source.inputs
    if not specs:
        raise UsageError(
            f"{source.origin} does not say the shapes of its inputs. Give one --input per input, "
            "for example --input 1x3x172x172."
        )
    info = source.info
    if preprocessing is not None and info.preprocessing is not None:
        raise UsageError(f"{source.origin} says its own preprocessing; --mean and --std are for other models.")
    picture = picture_of(specs, [before for before, _ in states])
    if preprocessing is not None and picture is None:
        raise UsageError(f"{source.origin} takes no pictures, {_shapes(specs)}; leave the preprocessing out.")
    if info.preprocessing is None and picture is not None:
        info = replace(info, preprocessing=preprocessing or plain(*picture.shape[-2:]))
    return capture(
        source.module,
        specs,
        info,
        state_pairs=states,
        initial=initial,
        constants=forward_kwargs,
        output_names=source.output_names,
    )


def _shapes(specs: Sequence[InputSpec]) -> str:
    return ", ".join("x".join(map(str, spec.shape)) or "scalar" for spec in specs)


def _run_jobs(
    request: Request, program: StreamProgram, staging: Path, scratch: Path, tell: Listener, template: Template | None
) -> dict[str, Outcome]:
    from mvtool.converters.program_io import save_program

    folder = staging / PROGRAM_FOLDER
    with stage(tell, "save"):
        save_program(program, folder)
    if template is not None:
        template.prepare(warm.REMEMBER, str(folder))
    jobs, needs = _plan(request, program.info.name, staging, scratch / SHARED)
    return Supervisor(scratch, request.parallel, request.stage_timeout_s, tell, template=template).run(jobs, needs)


def _controlled(
    request: Request,
    goal: Goal,
    program: StreamProgram,
    staging: Path,
    work: Path,
    outcomes: Mapping[str, Outcome],
    tell: Listener,
    template: Template | None,
) -> dict[str, Outcome]:
    """The outcomes with int8 artifacts that keep the accuracy."""
    jobs, _ = _plan(request, program.info.name, staging, work / "jobs" / SHARED)
    for name, outcome in outcomes.items():
        if isinstance(outcome, JobResult) and name in jobs:
            jobs[name] = jobs[name].model_copy(update={"forms": outcome.forms, "tune": False})
    numbers = itertools.count(1)

    def emit(job: Job) -> Outcome:
        name = f"{job.target}_{job.precision}"
        scratch = work / f"control_{next(numbers)}"
        supervisor = Supervisor(scratch, 1, request.stage_timeout_s, tell, template=template)
        return supervisor.run({name: job}, {})[name]

    shared = work / "jobs" / SHARED
    return Control(goal, program, staging, shared, emit, tell, request.parallel).hold(jobs, outcomes)


def _plan(request: Request, model: str, staging: Path, shared: Path) -> tuple[dict[str, Job], dict[str, str]]:
    """Jobs in starting order, and which job each waits for."""
    program = str(staging / PROGRAM_FOLDER)
    threads = max(1, (os.cpu_count() or 1) // request.parallel)
    jobs: dict[str, Job] = {}
    if request.int8:
        jobs[CALIBRATE] = Job(
            kind="calibrate",
            program=program,
            calibration=str(shared),
            clips=_clips(request.clips),
            output=str(staging / STATE_RANGES_FILE),
            threads=threads,
        )
    # int8 waits for the calibration, so the longest fp32 job starts beside it.
    order = sorted(request.artifacts, key=lambda a: (a[1] is Precision.INT8 and a[0] is Runtime.COREML, -_COST[a[0]]))
    for target, precision in order:
        jobs[f"{target.value}_{precision.value}"] = Job(
            kind="emit",
            program=program,
            calibration=str(shared) if precision is Precision.INT8 else None,
            target=target,
            precision=precision,
            layout=request.layout,
            forms=request.forms.get((target, precision), NO_FORMS),
            tune=request.tune,
            output=str(staging / artifact_file_name(model, target, precision)),
            simulation=_simulation(staging, target, precision),
            threads=threads,
        )
    needs = {name: CALIBRATE for name, job in jobs.items() if job.precision is Precision.INT8}
    return jobs, needs


def _clips(given: Path | None) -> str | None:
    """The user's calibration data for a worker, which has another working folder."""
    if given is None:
        return None
    return str(given if is_generator(str(given)) else given.absolute())


def _simulation(staging: Path, target: Runtime, precision: Precision) -> str | None:
    """TFLite quantizes its own float artifact; the simulation of it reads that file."""
    if not precision.quantized or target is Runtime.TFLITE:
        return None
    return str(staging / REFERENCE_FOLDER / f"{target.value}_{precision.value}")


def _finish(
    request: Request,
    source: Source,
    program: StreamProgram,
    staging: Path,
    destination: Path,
    outcomes: Mapping[str, Outcome],
    tell: Times,
    template: Template | None,
) -> Build:
    from mvtool.converters.assembly import assemble

    failures = {name: o for name, o in outcomes.items() if isinstance(o, JobFailure)}
    results = {name: o for name, o in outcomes.items() if isinstance(o, JobResult) and o.ports is not None}
    if not results:
        raise _error_of(failures, None)
    calibrated = outcomes.get(CALIBRATE)
    calibration = calibrated.calibration if isinstance(calibrated, JobResult) else None
    for note in () if calibration is None else calibration.notes:
        _LOG.warning(note)
    int8 = sum(r.ports is not None and r.ports.precision is Precision.INT8 for r in results.values())
    with stage(tell, "golden"), single_threaded_torch():
        assemble(
            source,
            program,
            staging,
            results,
            request.options,
            request.artifacts,
            calibration,
            lambda: tell.report(template, len(outcomes), int8),
        )
    # What cannot be complete does not replace what may be.
    place = partial_of(destination) if failures and destination.exists() else destination
    check_replaceable(place)
    with atomic_path(place) as partial:
        shutil.move(staging, partial)
    if failures:
        raise _error_of(failures, place)
    return Build.load(place)


def _error_of(failures: Mapping[str, JobFailure], place: Path | None) -> MvtoolError:
    """One error for all failures; its class is theirs where they agree."""
    lines = [f"{f.job.label.strip()}, stage {f.stage}: {f.message}" for f in failures.values()]
    kept = "Nothing was written." if place is None else f"The artifacts that did succeed are in {place}."
    text = "\n".join([f"{len(failures)} of the conversion's jobs failed.", *lines, kept])
    kinds = {_ERROR_CLASSES.get(f.error or "", ConversionError) for f in failures.values()}
    return kinds.pop()(text) if len(kinds) == 1 else ConversionError(text)
