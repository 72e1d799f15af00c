"""The simulation as a `mvtool.session.Session`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvtool.extras import require
from mvtool.ports import Binding, PortManifest, Precision, ResetBytes, RingBinding
from mvtool.runtimes import litert
from mvtool.runtimes.base import PortSession
from mvtool.runtimes.borders import Borders


def open_simulation(path: Path, *, anchor: bool = False, borders: Borders | None = None) -> PortSession:
    """A session that simulates an artifact.

    Args:
        path: A `.tflite` that mvtool wrote.
        anchor: Leave activations unrounded; the ports of the session's manifest are then float32.
        borders: Rounds what float operators computed.

    Raises:
        RuntimeLoadError: The file is damaged, or has an operator that the simulation does not know.
        ManifestError: The file has no valid port manifest.
        MissingExtraError: PyTorch or ai-edge-litert is not installed.
    """
    require("torch", "to simulate int8 models")
    from mvtool.runtimes.tflite_simulation.model import read_model
    from mvtool.runtimes.tflite_simulation.simulation import Simulation

    litert.check_complete(path)
    manifest = litert.read_manifest(path)
    simulation = Simulation(read_model(path), anchor=anchor, borders=borders)
    return PortSession(float_ports(manifest) if anchor else manifest, simulation)


def float_ports(manifest: PortManifest) -> PortManifest:
    """`manifest` with float32 ports in place of quantized ones."""
    return PortManifest(
        **{
            **dict(manifest),
            "precision": Precision.FP32,
            "inputs": tuple(_float(p) for p in manifest.inputs),
            "outputs": tuple(_float(p) for p in manifest.outputs),
            "states": tuple(_float_binding(b) for b in manifest.states),
        }
    )


def _float(port: Any) -> Any:
    if port.quantization is None:
        return port
    return port.model_copy(update={"dtype": "float32", "quantization": None})


def _float_binding(binding: Binding) -> Binding:
    initial = binding.input.decode(binding.reset.array(binding.input))
    reset = ResetBytes.of(_float(binding.input).encode(initial))
    ends = ("inputs", "outputs") if isinstance(binding, RingBinding) else ("input", "output")
    made = {end: _each_float(getattr(binding, end)) for end in ends}
    return binding.model_copy(update={**made, "reset": reset})


def _each_float(ports: Any) -> Any:
    return tuple(map(_float, ports)) if isinstance(ports, tuple) else _float(ports)
