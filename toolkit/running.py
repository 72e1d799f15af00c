"""Stepping a model through a video and reading its labels.

`run` gives a `Run`: a header that says what was executed, and the steps, computed as they are asked for. The
frames go through the preprocessing of the artifact's own port manifest, at the frame rate it names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvtool import labels as label_lists
from mvtool import preprocessing, video
from mvtool.errors import RuntimeLoadError, UsageError
from mvtool.frame_clock import Frame
from mvtool.ports import AnyArray, InputPort, OutputPort, PortManifest, Preprocessing
from mvtool.session import Session

RUN_SCHEMA = "mvtool.run/1"
UNTRAINED = "untrained weights"
"""Shown wherever a label of a model with a deterministic fill is shown."""

FloatArray = NDArray[np.float32]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Score:
    """One label of one step.

    Attributes:
        label: Name of the class.
        class_index: Position among the logits.
        probability: Softmax of the logits, 0..1.
    """

    label: str
    class_index: int
    probability: float


@dataclass(frozen=True)
class Step:
    """What the model said after one step.

    Attributes:
        index: Number of the step, from 0.
        frame_index: Number of the last frame that went in, counted at the model's frame rate.
        time_s: Time of that frame in the source.
        top: Most probable labels, best first.
        latency_ms: Wall time of the model alone, without decoding and preprocessing.
        untrained: The labels mean nothing, because the weights are a deterministic fill.
        probabilities: `(classes,)`, sum 1.
        image: The last frame that went in, `(H, W, 3)` RGB bytes.
    """

    index: int
    frame_index: int
    time_s: float
    top: tuple[Score, ...]
    latency_ms: float
    untrained: bool
    probabilities: FloatArray = field(repr=False, compare=False)
    image: NDArray[np.uint8] = field(repr=False, compare=False)

    def to_record(self) -> dict[str, Any]:
        """The JSON record of this step."""
        record: dict[str, Any] = {
            "kind": "step",
            "step": self.index,
            "frame": self.frame_index,
            "time_s": round(self.time_s, 6),
            "latency_ms": round(self.latency_ms, 4),
            "top": [
                {"label": s.label, "class": s.class_index, "probability": round(s.probability, 6)} for s in self.top
            ],
        }
        return {**record, "warning": UNTRAINED} if self.untrained else record


@dataclass(frozen=True)
class RunHeader:
    """What a run executed.

    Attributes:
        model: Name of the model.
        runtime: Runtime of the artifact.
        precision: Precision of the artifact.
        engine: What really executed it, for example `LiteRT` or `reference evaluator`.
        untrained: The weights are a deterministic fill.
        source: Video, folder or camera.
        frame_rate: Frames per second that went in; None for every frame of the source.
        frames_per_step: Frames that one step consumes.
        classes: Number of scores.
        labels: Name of the label list; None if classes have numbers only.
        expected_steps: Number of steps that the source announces; None if unknown.
    """

    model: str
    runtime: str
    precision: str
    engine: str
    untrained: bool
    source: str
    frame_rate: float | None
    frames_per_step: int
    classes: int
    labels: str | None
    expected_steps: int | None

    @property
    def title(self) -> str:
        """One line for tables and plots; says so if the weights are untrained."""
        title = f"{self.model} · {self.runtime} {self.precision} · {self.engine}"
        return f"{title} · {UNTRAINED}" if self.untrained else title

    def to_record(self) -> dict[str, Any]:
        """The JSON record that opens the file."""
        record: dict[str, Any] = {"kind": "header", "schema": RUN_SCHEMA}
        record |= {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**record, "warning": UNTRAINED} if self.untrained else record


@dataclass(frozen=True)
class Run:
    """A run; iterate over `steps` once."""

    header: RunHeader
    steps: Iterator[Step]


def run(
    session: Session,
    source: video.Source,
    *,
    labels: str | None = None,
    top_k: int = 5,
    frame_rate: float | None = None,
    limit: int | None = None,
) -> Run:
    """Step `session` through `source` from its reset state.

    Args:
        session: Any runtime; it is reset.
        source: Video, image folder, `.npy` file or camera number; see `mvtool.video.frames`.
        labels: Name or file of the label list; the manifest's list if not given.
        top_k: Labels per step.
        frame_rate: Frames per second; the manifest's rate if not given.
        limit: Stop after so many steps.

    Raises:
        UsageError: The model has no image input or no class scores, or the labels do not fit.
        VideoError: The source cannot be used; raised while iterating if it breaks off later.
    """
    manifest = session.manifest
    port, output = image_port(manifest), scores_port(manifest)
    classes = int(np.prod(output.logical_shape))
    if top_k < 1:
        raise UsageError(f"The number of labels per step is {top_k}; expected at least 1.")
    list_name, names = _labels(manifest, labels, classes)
    rate = frame_rate or manifest.frame_rate
    per_step = manifest.frames_per_step
    expected = video.expected_steps(source, frame_rate=rate)
    steps = None if expected is None else -(-expected // per_step)
    header = RunHeader(
        model=manifest.model,
        runtime=str(manifest.runtime),
        precision=str(manifest.precision),
        engine=session.engine,
        untrained=manifest.untrained,
        source=str(source),
        frame_rate=rate,
        frames_per_step=per_step,
        classes=classes,
        labels=list_name,
        expected_steps=steps if limit is None or steps is None else min(steps, limit),
    )
    frames = video.frames(source, frame_rate=rate, limit=None if limit is None else limit * per_step)
    return Run(header, _steps(session, frames, port, output, names, min(top_k, classes)))


def _steps(
    session: Session, frames: Iterator[Frame], port: InputPort, output: OutputPort, names: tuple[str, ...], top_k: int
) -> Iterator[Step]:
    manifest = session.manifest
    contract = manifest.preprocessing or default_preprocessing(port)
    session.reset()
    for index, group in enumerate(grouped(frames, manifest.frames_per_step)):
        inputs = to_logical(np.stack([preprocessing.apply(contract, frame.image) for frame in group]), port)
        start = time.perf_counter()
        results = session.step(inputs)
        latency_ms = (time.perf_counter() - start) * 1e3
        probabilities = softmax(results[output.name], f"{session.engine} at step {index}")
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        yield Step(
            index=index,
            frame_index=group[-1].index,
            time_s=group[-1].time_s,
            top=tuple(Score(names[i], int(i), float(probabilities[i])) for i in best),
            latency_ms=latency_ms,
            untrained=manifest.untrained,
            probabilities=probabilities,
            image=group[-1].image,
        )


def grouped(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one is filled up with its last item, so that no frame goes unseen."""
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group + [group[-1]] * (size - len(group))


def softmax(logits: AnyArray, origin: str = "The model") -> FloatArray:
    """Probabilities `(classes,)` of logits of any shape with that many elements.

    Raises:
        RuntimeLoadError: A logit is not a finite number; `origin` is named.
    """
    flat = np.asarray(logits, np.float64).reshape(-1)
    if not np.isfinite(flat).all():
        raise RuntimeLoadError(
            f"{origin} gave {np.count_nonzero(~np.isfinite(flat))} logits of {flat.size} that are not finite numbers. "
            "Run `mvtool verify` on the build; it names the first tensor that leaves the reference."
        )
    exponentials = np.exp(flat - flat.max())
    return np.asarray(exponentials / exponentials.sum(), np.float32)


def to_logical(frames: FloatArray, port: InputPort) -> FloatArray:
    """Arrange frames `(T, H, W, C)` as the model's input.

    Raises:
        UsageError: The axes cannot hold the frames.
    """
    layout = port.logical_layout or ""
    held = "".join(axis for axis in layout if axis != "N")
    array = frames[0] if "T" not in held and len(frames) == 1 else frames
    axes = "HWC" if array.ndim == 3 else "THWC"
    if sorted(held) != sorted(axes):
        raise UsageError(f"Port {port.name!r} has the axes {layout or 'unknown'}; {len(frames)} frames have {axes}.")
    arranged = array.transpose([axes.index(axis) for axis in held]).reshape(port.logical_shape)
    return np.ascontiguousarray(arranged, np.float32)


def default_preprocessing(port: InputPort) -> Preprocessing:
    """The contract for a port whose manifest states none."""
    sizes = dict(zip(port.logical_layout or "", port.logical_shape, strict=True))
    return preprocessing.plain(sizes["H"], sizes["W"])


def image_port(manifest: PortManifest) -> InputPort:
    """The input that takes video frames.

    Raises:
        UsageError: The model has none, or more than one.
    """
    port = manifest.inputs[0]
    if len(manifest.inputs) > 1 or not port.image or not {"H", "W"} <= set(port.logical_layout or ""):
        held = ", ".join(f"{p.name} {p.logical_shape} {p.logical_layout or ''}".strip() for p in manifest.inputs)
        raise UsageError(
            f"{manifest.model} cannot run on a video: its inputs are {held}. Expected one input of video frames. "
            "In Python, `mvtool.open(path).step(...)` takes any inputs."
        )
    return port


def scores_port(manifest: PortManifest) -> OutputPort:
    """The output that gives class scores.

    Raises:
        UsageError: The model has none, or more than one.
    """
    named = [p for p in manifest.outputs if p.meaning == "logits"] or list(manifest.outputs)
    if len(named) != 1 or sum(n > 1 for n in named[0].logical_shape) != 1:
        held = ", ".join(f"{p.name} {p.logical_shape}" for p in manifest.outputs)
        raise UsageError(
            f"{manifest.model} gives {held}; expected one vector of class scores. "
            "In Python, `mvtool.open(path).step(...)` returns any outputs."
        )
    return named[0]


def class_names(manifest: PortManifest) -> tuple[str, ...]:
    """Names of the model's classes in the order of its scores; `class 0`, `class 1`, ... where nobody named them.

    Raises:
        UsageError: The model gives no class scores.
    """
    return _labels(manifest, None, int(np.prod(scores_port(manifest).logical_shape)))[1]


def _labels(manifest: PortManifest, chosen: str | None, classes: int) -> tuple[str | None, tuple[str, ...]]:
    """The list asked for, which must fit; else the manifest's, if it fits."""
    if chosen is not None:
        return chosen, label_lists.for_classes(chosen, classes)
    if len(manifest.class_names) == classes:
        return manifest.labels, manifest.class_names
    own = manifest.labels if manifest.labels in label_lists.BUNDLED else None
    if own is not None and len(label_lists.load(own)) == classes:
        return own, label_lists.load(own)
    return None, label_lists.for_classes(None, classes)
