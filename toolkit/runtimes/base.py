"""What all sessions share: an executable that maps port arrays to port arrays, and the state between steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from mvtool import slots
from mvtool.errors import ManifestError
from mvtool.ports import AnyArray, Binding, PortManifest, Quantization, TensorPort, contiguous


class Executable(Protocol):
    """A loaded artifact."""

    @property
    def engine(self) -> str:
        """What executes it, for reports."""
        ...

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Execute one step.

        Args:
            inputs: Stored arrays in the order of the input positions.

        Returns:
            Stored arrays in the order of the output positions, which stay valid after the next call.

        Raises:
            RuntimeLoadError: The runtime failed.
        """
        ...


class ScaleHome(StrEnum):
    """Where a format keeps the scale and zero point of a port.

    PORTS: With the tensor (TFLite).
    OPERATORS: In the quantize operators beside it (Core ML, for states).
    NOWHERE: Not readable from the file (`.pte`, inside a delegate).
    """

    PORTS = "ports"
    OPERATORS = "operators"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class FilePort:
    """A tensor as the artifact itself declares it, without its manifest.

    Attributes:
        name: `None` where the format keeps no names (`.pte`).
        shape: Axis lengths.
        dtype: NumPy name of the element type.
        scales: Different scales and zero points that the file applies to it.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[Quantization, ...] = ()


@dataclass(frozen=True)
class FilePorts:
    """All ports of an artifact, in position order.

    Attributes:
        inputs: Input tensors.
        outputs: Output tensors.
        scale_home: Where `scales` were read from.
    """

    inputs: tuple[FilePort, ...]
    outputs: tuple[FilePort, ...]
    scale_home: ScaleHome


class PortSession:
    """A `mvtool.session.Session` over any executable."""

    def __init__(self, manifest: PortManifest, executable: Executable) -> None:
        """Start a session in the reset state."""
        self._manifest = manifest
        self._executable = executable
        # Per state what its inputs take; the arrays are handed on, never copied.
        self._state: dict[str, list[AnyArray]] = {}
        self.reset()

    @property
    def manifest(self) -> PortManifest:
        """Ports of the artifact."""
        return self._manifest

    @property
    def engine(self) -> str:
        """What executes the artifact."""
        return self._executable.engine

    def reset(self) -> None:
        """Return to the state before the first frame."""
        self._state = {b.state: slots.split(b.reset.array(b.input), b.inputs) for b in self._manifest.states}

    def step(self, *inputs: AnyArray) -> dict[str, AnyArray]:
        """Execute one step; see `Session.step`."""
        ports = self._manifest.inputs
        if len(inputs) != len(ports):
            raise ManifestError(f"The model got {len(inputs)} inputs, expected {[p.name for p in ports]}.")
        arrays: list[AnyArray | None] = [None] * len(self._manifest.input_ports)
        for port, array in zip(ports, inputs, strict=True):
            arrays[port.position] = port.encode(array)
        for binding in self._manifest.states:
            for state_port, held in zip(binding.inputs, self._state[binding.state], strict=True):
                arrays[state_port.position] = held
        results = self._executable.run([array for array in arrays if array is not None])
        for binding in self._manifest.states:
            newest = [_stored(port, results) for port in binding.outputs]
            self._state[binding.state] = slots.moved_up(self._state[binding.state], newest)
        return {port.name: port.decode(_stored(port, results)) for port in self._manifest.outputs}

    def state(self) -> dict[str, AnyArray]:
        """State name to stored port array, as it will enter the next step."""
        return {b.state: slots.join(self._state[b.state], b.input) for b in self._manifest.states}

    def set_state(self, stored: Mapping[str, AnyArray]) -> None:
        """Replace the state by stored port arrays.

        Raises:
            ManifestError: A state is missing, unknown, or has another shape or type.
        """
        bindings = {b.state: b for b in self._manifest.states}
        if set(stored) != set(bindings):
            raise ManifestError(f"Got the states {sorted(stored)}, expected {sorted(bindings)}.")
        self._state = {
            name: slots.split(_checked(bindings[name], array), bindings[name].inputs) for name, array in stored.items()
        }


def _checked(binding: Binding, array: AnyArray) -> AnyArray:
    port = binding.input
    if array.shape != port.shape or array.dtype != np.dtype(port.dtype):
        raise ManifestError(
            f"State {binding.state!r} got {array.dtype} of shape {array.shape}, expected {port.dtype} of {port.shape}."
        )
    return contiguous(array)


def _stored(port: TensorPort, results: Sequence[AnyArray]) -> AnyArray:
    array = results[port.position]
    if array.size != int(np.prod(port.shape, dtype=np.int64)) or array.dtype != np.dtype(port.dtype):
        raise ManifestError(
            f"Output {port.name!r} at position {port.position} came as {array.dtype} of shape {array.shape}, "
            f"the manifest says {port.dtype} of {port.shape}. The manifest does not belong to this file."
        )
    return array.reshape(port.shape)
