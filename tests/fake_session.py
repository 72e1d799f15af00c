"""A session that needs no framework: its logits follow the mean colour of what it sees."""

from __future__ import annotations

import numpy as np

from mvtool.ports import AnyArray, InputPort, OutputPort, PortManifest, Precision, Preprocessing, Runtime

CLASSES = 6


def manifest(
    *,
    untrained: bool = False,
    frames_per_step: int = 1,
    classes: int = CLASSES,
    layout: str = "NCTHW",
    labels: str | None = None,
    class_names: tuple[str, ...] = (),
    preprocessing: bool = True,
) -> PortManifest:
    """A port manifest of a model that takes frames of 32x32 pixels."""
    sizes = {"N": 1, "C": 3, "T": frames_per_step, "H": 32, "W": 32}
    shape = tuple(sizes[axis] for axis in layout)
    frame = InputPort(
        name="frame",
        position=0,
        shape=(frames_per_step, 3, 32, 32),
        dtype="float32",
        logical_shape=shape,
        permutation=tuple(range(len(layout))),
        image=True,
        logical_layout=layout,
    )
    logits = OutputPort(
        name="logits",
        position=0,
        shape=(1, classes),
        dtype="float32",
        logical_shape=(1, classes),
        permutation=(0, 1),
        meaning="logits",
    )
    return PortManifest(
        model="colours",
        runtime=Runtime.TFLITE,
        precision=Precision.FP32,
        untrained=untrained,
        frames_per_step=frames_per_step,
        frame_rate=5.0,
        preprocessing=Preprocessing(resize_short_side=32, crop=(32, 32)) if preprocessing else None,
        inputs=(frame,),
        outputs=(logits,),
        labels=labels,
        class_names=class_names,
    )


class FakeSession:
    """Keeps a sum of everything it saw, as a stream does, until `reset`."""

    engine = "fake engine"

    def __init__(self, ports: PortManifest) -> None:
        self.manifest = ports
        self.seen: list[AnyArray] = []
        self.resets = 0
        self.answer: float | None = None

    def reset(self) -> None:
        self.seen = []
        self.resets += 1

    def step(self, *inputs: AnyArray) -> dict[str, AnyArray]:
        (frame,) = inputs
        assert frame.shape == self.manifest.inputs[0].logical_shape
        self.seen.append(frame)
        classes = self.manifest.outputs[0].logical_shape[1]
        logits = np.linspace(0, 1, classes, dtype=np.float32)[None] * len(self.seen)
        if self.answer is not None:
            logits[0, 0] = self.answer
        return {self.manifest.outputs[0].name: logits}

    def state(self) -> dict[str, AnyArray]:
        return {}

    def set_state(self, stored: dict[str, AnyArray]) -> None:
        assert not stored
