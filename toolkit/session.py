"""The contract of a running model, the same for PyTorch and for every runtime."""

from __future__ import annotations

from typing import Protocol

from mvtool.ports import AnyArray, PortManifest


class Session(Protocol):
    """A model that is being stepped.

    All arrays at this interface are *logical*: the shapes of the trained model, float32 for real
    numbers. A session converts to the layout and type of the artifact's ports, keeps the state in
    stored form between steps and never rounds it on the way.
    """

    @property
    def manifest(self) -> PortManifest:
        """Ports of the artifact."""
        ...

    @property
    def engine(self) -> str:
        """What executes the artifact, for reports: `LiteRT`, `reference evaluator`, ..."""
        ...

    def reset(self) -> None:
        """Return to the state before the first frame."""
        ...

    def step(self, *inputs: AnyArray) -> dict[str, AnyArray]:
        """Execute one step and keep the new state.

        Args:
            inputs: One array per entry of `manifest.inputs`, in that order, in logical shape.

        Returns:
            Output name to logical array; float32 for real numbers.

        Raises:
            RuntimeLoadError: The runtime failed.
            ManifestError: An input has the wrong shape.
        """
        ...

    def state(self) -> dict[str, AnyArray]:
        """State name to *stored* port array, as it will enter the next step."""
        ...

    def set_state(self, stored: dict[str, AnyArray]) -> None:
        """Replace the state by stored port arrays, as `state` returned them."""
        ...
