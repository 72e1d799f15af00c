"""Manifests and sessions by hand, for tests that need no framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvtool.build import ArtifactEntry, BuildManifest, FileEntry, GoldenEntry, ModelProvenance
from mvtool.ports import (
    AnyArray,
    InputPort,
    LogicalState,
    OutputPort,
    PortManifest,
    Precision,
    Quantization,
    ResetBytes,
    Runtime,
    StateBinding,
    StateForm,
    TensorPort,
)
from mvtool.runtimes.base import PortSession

SHA = "0" * 64
SUFFIX = {Runtime.TFLITE: "tflite", Runtime.EXECUTORCH: "pte", Runtime.COREML: "mlpackage"}


def port_fields(name: str, position: int, shape: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """Fields of a float port whose logical tensor is the port itself."""
    order = tuple(range(len(shape)))
    plain = {"shape": shape, "logical_shape": shape, "permutation": order, "dtype": "float32"}
    return {"name": name, "position": position, **plain, **more}


def binding(name: str, number: int, shape: tuple[int, ...], scale: Quantization | None = None) -> StateBinding:
    """A state that enters behind one input and leaves behind one output."""
    more: dict[str, Any] = {"dtype": "int8", "quantization": scale} if scale else {}
    enters = TensorPort(**port_fields(name, 1 + number, shape, **more))
    leaves = TensorPort(**port_fields(f"{name}_next", 1 + number, shape, **more))
    reset = ResetBytes.of(enters.encode(np.zeros(shape, np.float32)))
    return StateBinding(state=name, form=StateForm.OPAQUE, input=enters, output=leaves, reset=reset)


def port_manifest(
    runtime: Runtime = Runtime.TFLITE,
    precision: Precision = Precision.FP32,
    states: Sequence[str] = ("left", "right"),
    scale: Quantization | None = None,
) -> PortManifest:
    """One input `x` (4,), one output `y` (4,), states of shape (4,)."""
    bindings = tuple(binding(name, number, (4,), scale) for number, name in enumerate(states))
    return PortManifest(
        model="toy",
        runtime=runtime,
        precision=precision,
        inputs=(InputPort(**port_fields("x", 0, (4,))),),
        outputs=(OutputPort(**port_fields("y", 0, (4,))),),
        logical_states=tuple(
            LogicalState(name=name, source=name, meaning="", shape=(4,), dtype="float32") for name in states
        ),
        states=bindings,
    )


def artifact_entry(runtime: Runtime, precision: Precision, **changes: Any) -> ArtifactEntry:
    """An entry whose file need not exist."""
    fields: dict[str, Any] = {
        "file": f"toy_{precision}.{SUFFIX[runtime]}",
        "bytes": 0,
        "sha256": SHA,
        "runtime": runtime,
        "precision": precision,
        "ports": port_manifest(runtime, precision),
    }
    return ArtifactEntry(**{**fields, **changes})


def build_manifest(*artifacts: ArtifactEntry) -> BuildManifest:
    """A build manifest; without arguments it lists three runtimes in fp32 and int8."""
    listed = artifacts or tuple(artifact_entry(r, p) for r in Runtime for p in (Precision.INT8, Precision.FP32))
    return BuildManifest(
        model=ModelProvenance(name="toy", source="toy"),
        artifacts=listed,
        program=FileEntry(file="reference/program", bytes=0, sha256=SHA),
        golden=GoldenEntry(file="golden.npz", bytes=0, sha256=SHA, frames=8, tolerances={Precision.FP32: 1e-4}),
    )


class ToyExecutable:
    """`step(x, left, right)` in Python; `wrong` changes the list of results."""

    engine = "Python"

    def __init__(self, wrong: Callable[[list[NDArray[Any]]], list[NDArray[Any]]] | None = None) -> None:
        self._wrong = wrong or (lambda results: results)

    def run(self, inputs: Sequence[NDArray[Any]]) -> Sequence[AnyArray]:
        x, left, right = inputs
        return self._wrong([x + left - right, np.tanh(0.5 * left + x), np.tanh(0.25 * right - x)])


class SwappedInputs(ToyExecutable):
    """Takes its states in the wrong order."""

    def run(self, inputs: Sequence[NDArray[Any]]) -> Sequence[AnyArray]:
        x, left, right = inputs
        return super().run([x, right, left])


def toy_session(executable: ToyExecutable | None = None) -> PortSession:
    """A float session on the toy."""
    return PortSession(port_manifest(), executable or ToyExecutable())
