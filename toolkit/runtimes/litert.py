"""TFLite artifacts, executed by LiteRT (`ai_edge_litert`) or the older `tflite_runtime`.

Field numbers are those of `tflite/converter/schema/schema.fbs`, schema version 3.
"""

from __future__ import annotations

import importlib.util
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from mvtool.errors import ManifestError, RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray, PortManifest, Quantization
from mvtool.runtimes import file_pages
from mvtool.runtimes.base import FilePort, FilePorts, PortSession, ScaleHome
from mvtool.runtimes.flatbuffer import Table
from mvtool.runtimes.native_log import NativeLog, native_log

METADATA_NAME = "mvtool.ports"
_IDENTIFIER = b"TFL3"
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}


class LiteRTExecutable:
    """An interpreter, called through the signature and fed by name, as an app does it."""

    def __init__(self, path: Path, manifest: PortManifest, threads: int) -> None:
        """Load `path`.

        Raises:
            MissingExtraError: No TFLite runtime is installed.
            RuntimeLoadError: The runtime refuses the file.
            ManifestError: A port of the manifest is not a tensor of the signature.
        """
        module, self.engine = _interpreter_module()
        log = NativeLog()
        try:
            with native_log() as log:
                self._interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
                self._runner = self._interpreter.get_signature_runner()
            names = {*self._runner.get_input_details(), *self._runner.get_output_details()}
        except (RuntimeError, ValueError) as error:
            raise RuntimeLoadError(f"{self.engine} refuses to load {path}: {error}.{log.reason()}") from error
        self._inputs = [port.name for port in manifest.input_ports]
        self._outputs = [port.name for port in manifest.output_ports]
        if missing := [name for name in (*self._inputs, *self._outputs) if name not in names]:
            raise ManifestError(f"The signature of {path} lacks {missing}; it has {sorted(names)}.")
        # Weights are packed by now, and names are read.
        file_pages.release(path)

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Execute one step; the signature runner returns copies."""
        try:
            results: dict[str, AnyArray] = self._runner(**dict(zip(self._inputs, inputs, strict=True)))
        except (RuntimeError, ValueError) as error:
            raise RuntimeLoadError(f"{self.engine} failed to execute a step: {error}") from error
        return [results[name] for name in self._outputs]

    def repeated(self, inputs: Sequence[AnyArray]) -> Callable[[], object]:
        """A call with always the same inputs that converts and copies nothing, for measuring."""
        self.run(inputs)
        call: Callable[[], object] = self._interpreter.invoke
        return call


def _interpreter_module() -> tuple[ModuleType, str]:
    if importlib.util.find_spec("ai_edge_litert") is None and importlib.util.find_spec("tflite_runtime") is not None:
        return importlib.import_module("tflite_runtime.interpreter"), "tflite_runtime"
    return require("ai_edge_litert.interpreter", "to execute TFLite models"), "LiteRT"


def open_tflite(path: Path, threads: int = 1) -> PortSession:
    """A session on a `.tflite` file.

    Raises:
        ManifestError: The file has no valid port manifest, or one of another file.
        RuntimeLoadError: The runtime refuses the file.
        MissingExtraError: No TFLite runtime is installed.
    """
    check_complete(path)
    manifest = read_manifest(path)
    return PortSession(manifest, LiteRTExecutable(path, manifest, threads))


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as stream:
        try:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise RuntimeLoadError(f"{path} is empty. Convert the model again.") from error
    if bytes(data[4:8]) != _IDENTIFIER:
        raise RuntimeLoadError(f"{path} is not a TFLite file: got {bytes(data[4:8])!r}, expected {_IDENTIFIER!r}.")
    return data


def _model(path: Path) -> Table:
    return Table.root(_mapped(path))


def check_complete(path: Path) -> None:
    """Check that every buffer the file refers to lies inside it.

    Raises:
        RuntimeLoadError: The file is truncated or is no TFLite file.
    """
    model = _model(path)
    length = path.stat().st_size
    for buffer in model.tables(4):
        buffer.bytes(0)
        end = buffer.scalar(1, "Q") + buffer.scalar(2, "Q")
        if end > length:
            raise RuntimeLoadError(f"{path} is truncated: a weight ends at byte {end}, the file at {length}.")


def read_manifest(path: Path) -> PortManifest:
    """The port manifest in the metadata of a `.tflite` file.

    Raises:
        ManifestError: There is none, or it is not valid.
        RuntimeLoadError: The file is truncated or is no TFLite file.
    """
    data = _mapped(path)
    model = Table.root(data)
    buffers = list(model.tables(4))
    for metadata in model.tables(6):
        if metadata.text(0) == METADATA_NAME:
            buffer = buffers[metadata.scalar(1, "I")]
            # ai-edge-quantizer moves buffers behind the FlatBuffer and leaves offset and size.
            start, size = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")
            text = bytes(data[start : start + size] if size else buffer.bytes(0))
            return PortManifest.from_json(text.rstrip(b"\0"), str(path))
    raise ManifestError(f"{path} has no metadata {METADATA_NAME!r}: it was not written by mvtool.")


def file_ports(path: Path) -> FilePorts:
    """Ports of the graph itself, in position order, named by the signature.

    The graph's own inputs and outputs count, not the tensors that the signature points to: after
    quantization the two can differ, and a runtime that works by position uses the graph's.

    Raises:
        ManifestError: The signature does not name each input and output of the graph exactly once.
    """
    model = _model(path)
    graph = next(model.tables(2))
    tensors = list(graph.tables(0))
    signature = next(model.tables(7), None)
    if signature is None:
        raise ManifestError(f"{path} has no signature, so its tensors have no names.")
    sides = [
        _named_side(path, [int(i) for i in graph.numbers(field, "i")], signature, number, tensors)
        for field, number in ((1, 0), (2, 1))
    ]
    return FilePorts(inputs=sides[0], outputs=sides[1], scale_home=ScaleHome.PORTS)


def _named_side(
    path: Path, indices: list[int], signature: Table, number: int, tensors: list[Table]
) -> tuple[FilePort, ...]:
    names: dict[int, list[str]] = {}
    for entry in signature.tables(number):
        names.setdefault(entry.scalar(1, "I"), []).append(entry.text(0))
    if sorted(index for index, found in names.items() for _ in found) != sorted(indices):
        raise ManifestError(
            f"The signature of {path} names the tensors {sorted(names)}, the graph's own are {sorted(indices)}."
        )
    return tuple(_file_port(names[index].pop(0), tensors[index]) for index in indices)


def _file_port(name: str, tensor: Table) -> FilePort:
    shape = tuple(int(length) for length in tensor.numbers(0, "i"))
    dtype = _TYPES.get(tensor.scalar(1, "b"), "unknown")
    return FilePort(name, shape, dtype, _scales(tensor))


def _scales(tensor: Table) -> tuple[Quantization, ...]:
    parameters = tensor.table(4)
    if parameters is None:
        return ()
    scales = parameters.numbers(2, "f")
    # A format without zero points means 0 for each scale.
    zeros = parameters.numbers(3, "q") or (0,) * len(scales)
    pairs = zip(scales, zeros, strict=True)
    return tuple(dict.fromkeys(Quantization(scale=scale, zero_point=int(zero)) for scale, zero in pairs))
