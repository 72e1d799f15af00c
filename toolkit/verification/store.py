"""Reference frames in a file that two processes map into memory.

The PyTorch stream runs once, in the parent; every worker reads its tensors from here instead of
through a pipe. A few frames are held at a time, never the whole replay: 300 frames of a MoViNet-A2 state
would be 3 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool.ports import AnyArray, PortManifest

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class Frame:
    """Logical tensors of one step.

    Attributes:
        inputs: In port order.
        outputs: Output name to what the step gave.
        states: State name to the state after the step.
    """

    inputs: tuple[AnyArray, ...]
    outputs: Mapping[str, AnyArray]
    states: Mapping[str, AnyArray]

    def copy(self) -> Frame:
        """The same values in memory of their own."""
        return Frame(
            tuple(array.copy() for array in self.inputs),
            {name: array.copy() for name, array in self.outputs.items()},
            {name: array.copy() for name, array in self.states.items()},
        )


class FrameStore:
    """A file of `slots` frames, laid out by the reference program's manifest."""

    def __init__(self, path: Path, manifest: PortManifest, slots: int) -> None:
        """Map the file at `path`, which is made if it does not exist."""
        self._frames: list[Frame] = []
        tensors = list(_tensors(manifest))
        frame_bytes = sum(_padded(shape, dtype) for shape, dtype in tensors)
        total = max(1, frame_bytes * slots)
        if not path.exists():
            with path.open("wb") as stream:
                stream.truncate(total)
        memory = np.memmap(path, dtype=np.uint8, mode="r+", shape=(total,))
        for slot in range(slots):
            self._frames.append(_frame(memory[slot * frame_bytes : (slot + 1) * frame_bytes], manifest, tensors))

    def read(self, slot: int) -> Frame:
        """The frame in `slot`, as views that change when it is written again."""
        return self._frames[slot]

    def write(self, slot: int, frame: Frame) -> None:
        """Copy `frame` into `slot`."""
        target = self._frames[slot]
        for there, here in zip(target.inputs, frame.inputs, strict=True):
            there[...] = here
        for name, here in frame.outputs.items():
            target.outputs[name][...] = here
        for name, here in frame.states.items():
            target.states[name][...] = here


def _tensors(manifest: PortManifest) -> Iterator[tuple[tuple[int, ...], np.dtype[np.generic]]]:
    for port in (*manifest.inputs, *manifest.outputs, *(b.output for b in manifest.states)):
        yield port.logical_shape, np.dtype(port.dtype)


def _padded(shape: Sequence[int], dtype: np.dtype[np.generic]) -> int:
    size = math.prod(shape) * dtype.itemsize
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _frame(
    memory: NDArray[np.uint8],
    manifest: PortManifest,
    tensors: Sequence[tuple[tuple[int, ...], np.dtype[np.generic]]],
) -> Frame:
    views: list[AnyArray] = []
    offset = 0
    for shape, dtype in tensors:
        size = math.prod(shape) * dtype.itemsize
        views.append(np.asarray(memory[offset : offset + size]).view(dtype).reshape(shape))
        offset += _padded(shape, dtype)
    inputs, outputs = len(manifest.inputs), len(manifest.outputs)
    names = [port.name for port in manifest.outputs]
    states = [binding.state for binding in manifest.states]
    return Frame(
        tuple(views[:inputs]),
        dict(zip(names, views[inputs : inputs + outputs], strict=True)),
        dict(zip(states, views[inputs + outputs :], strict=True)),
    )
