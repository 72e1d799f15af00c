"""Core ML artifacts: predicted by Core ML on macOS, computed by the reference evaluator elsewhere.

The evaluator (`mvtool.runtimes.mlprogram`) reads the saved `.mlpackage` by itself; what it says about
an artifact is proof of the file, not of Apple's runtime, so its engine name is never "Core ML".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.errors import ManifestError, RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray, PortManifest, TensorPort
from mvtool.runtimes.base import Executable, FilePort, FilePorts, PortSession, ScaleHome
from mvtool.runtimes.coreml_scales import Scales, ScaleTrace
from mvtool.runtimes.mlprogram.dtypes import numpy_dtype
from mvtool.runtimes.mlprogram.loader import load_program as parse_package
from mvtool.runtimes.mlprogram.program import ColorLayout, Feature, ImageFeature, MLProgram
from mvtool.runtimes.protobuf import generated_classes_alone

METADATA_KEY = "mvtool.ports"


class EvaluatorExecutable:
    """The reference evaluator."""

    engine = "reference evaluator"

    def __init__(self, program: MLProgram, manifest: PortManifest) -> None:
        """Plan the operators of `program`.

        Raises:
            RuntimeLoadError: It has an operator that the evaluator does not know.
            ManifestError: A port of the manifest is not a port of the program.
        """
        from mvtool.runtimes.mlprogram.evaluator import Evaluator

        _check_names(program, manifest)
        self._evaluator = Evaluator(program)
        self._inputs = manifest.input_ports
        self._outputs = manifest.output_ports
        self._shapes = {feature.name: feature.type.shape for feature in program.inputs}

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Execute one step."""
        named = {
            port.name: array.reshape(self._shapes[port.name]) for port, array in zip(self._inputs, inputs, strict=True)
        }
        results = self._evaluator.run(named)
        # A result may be a view of an input or of a constant.
        return [np.array(results[port.name]) for port in self._outputs]


class CoreMLExecutable:
    """Apple's runtime, by `coremltools` on macOS."""

    engine = "Core ML"

    def __init__(self, path: Path, program: MLProgram, manifest: PortManifest) -> None:
        """Compile and load the package.

        Raises:
            RuntimeLoadError: Core ML refuses it.
            ManifestError: A port of the manifest is not a port of the program.
        """
        coremltools = require("coremltools", "to predict with Core ML")
        _check_names(program, manifest)
        try:
            # The processor alone computes in fp32 where the model asks for it.
            self._model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
        except Exception as error:
            raise RuntimeLoadError(f"Core ML refuses to load {path}: {error}") from error
        self._features = {feature.name: feature for feature in program.inputs}
        self._inputs = manifest.input_ports
        self._outputs = manifest.output_ports

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Execute one step."""
        named = {
            port.name: _fed(self._features[port.name], array) for port, array in zip(self._inputs, inputs, strict=True)
        }
        try:
            results = self._model.predict(named)
        except Exception as error:
            raise RuntimeLoadError(f"Core ML failed to execute a step: {error}") from error
        return [_taken(port, results[port.name]) for port in self._outputs]


def _fed(feature: Feature, array: AnyArray) -> Any:
    """What `predict` takes for a stored array: a PIL picture for an image port, else the array."""
    shaped = array.reshape(feature.type.shape)
    if not isinstance(feature, ImageFeature):
        return shaped
    image = require("PIL.Image", "to pass pictures to Core ML")
    channels_last = shaped[0].transpose(1, 2, 0)
    # Core ML brings a picture into the port's colour order by itself; stored arrays have that order already.
    if feature.layout is ColorLayout.BGR:
        channels_last = channels_last[..., ::-1]
    return image.fromarray(np.ascontiguousarray(channels_last))


def _taken(port: TensorPort, result: AnyArray) -> AnyArray:
    # The strides of Core ML's outputs can be padded; copying by NumPy heeds them.
    return np.array(result, dtype=port.dtype).reshape(port.shape)


def _check_names(program: MLProgram, manifest: PortManifest) -> None:
    for kind, ports, features in (
        ("inputs", manifest.input_ports, program.inputs),
        ("outputs", manifest.output_ports, program.outputs),
    ):
        have = {feature.name for feature in features}
        if have != {port.name for port in ports}:
            raise ManifestError(
                f"The program's {kind} are {sorted(have)}, its manifest lists {sorted(p.name for p in ports)}. "
                "The manifest does not belong to this file."
            )


def open_coreml(path: Path, threads: int = 1) -> PortSession:
    """A session on a `.mlpackage` folder.

    Args:
        path: The folder.
        threads: Unused; neither engine lets a caller choose.

    Raises:
        ManifestError: The package has no valid port manifest, or one of another file.
        RuntimeLoadError: The package cannot be executed.
        MissingExtraError: coremltools is not installed.
    """
    del threads
    program = _parsed(path)
    manifest = _manifest(program, path)
    executable: Executable
    if sys.platform == "darwin":
        executable = CoreMLExecutable(path, program, manifest)
    else:
        executable = EvaluatorExecutable(program, manifest)
    return PortSession(manifest, executable)


def _parsed(path: Path) -> MLProgram:
    with generated_classes_alone():
        return parse_package(path)


def check_complete(path: Path) -> None:
    """Check that the specification parses and that every weight lies inside the weight file.

    Raises:
        ManifestError: Files are missing or damaged.
        RuntimeLoadError: The model is not an ML program.
    """
    _parsed(path)


def read_manifest(path: Path) -> PortManifest:
    """The port manifest in the user-defined metadata of a `.mlpackage`.

    Raises:
        ManifestError: There is none, or it is not valid.
        RuntimeLoadError: The model is not an ML program.
    """
    return _manifest(_parsed(path), path)


def _manifest(program: MLProgram, path: Path) -> PortManifest:
    text = program.metadata.get(METADATA_KEY)
    if text is None:
        raise ManifestError(f"{path} has no metadata {METADATA_KEY!r}: it was not written by mvtool.")
    return PortManifest.from_json(text, str(path))


def file_ports(path: Path) -> FilePorts:
    """Ports of the model description, in its order, with the grids of the operators beside them.

    Raises:
        RuntimeLoadError: The model is not an ML program.
        ManifestError: Files are missing or damaged.
    """
    program = _parsed(path)
    trace = ScaleTrace(program)
    return FilePorts(
        inputs=tuple(_file_port(feature, trace.entering(feature.name)) for feature in program.inputs),
        outputs=tuple(_file_port(feature, trace.leaving(feature.name)) for feature in program.outputs),
        scale_home=ScaleHome.OPERATORS,
    )


def _file_port(feature: Feature, scales: Scales) -> FilePort:
    dtype = "uint8" if isinstance(feature, ImageFeature) else numpy_dtype(feature.type.dtype).name
    return FilePort(feature.name, feature.type.shape, dtype, scales)
