"""ExecuTorch artifacts, executed by the runtime of the `executorch` wheel.

A `.pte` keeps no port names: position `i` of the manifest is argument or result `i` of `forward`,
and the manifest itself is the result of the method `mvtool_ports`.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from mvtool.errors import ManifestError, RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray, PortManifest, contiguous
from mvtool.runtimes.base import FilePort, FilePorts, PortSession, ScaleHome
from mvtool.runtimes.native_log import NativeLog, native_log

PORTS_METHOD = "mvtool_ports"
_METHOD = "forward"
# executorch/runtime/core/portable_type/scalar_type.h
_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 11: "bool"}
# executorch/schema/extended_header.cpp: magic at byte 8, its length, then three 64-bit little-endian numbers.
_HEADER_MAGIC = b"eh00"
_HEADER_AT = 8


class ExecuTorchExecutable:
    """The method `forward` of a loaded program.

    The host runtime has one thread pool per process, which spins on every core by default; `threads`
    therefore applies to all ExecuTorch sessions of the process.
    """

    engine = "ExecuTorch"

    def __init__(self, path: Path, threads: int) -> None:
        """Load `path`.

        Raises:
            MissingExtraError: executorch is not installed.
            RuntimeLoadError: The runtime refuses the file.
        """
        self._torch = require("torch", "to pass tensors to ExecuTorch")
        library = _library()
        with native_log():
            library._unsafe_reset_threadpool(threads)
        self._module = _load(library, path)
        self._executed = False

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Execute one step; the runtime clones its outputs."""
        # The runtime computes with what an earlier call left when it is given too few inputs.
        tensors = tuple(self._torch.from_numpy(contiguous(array)) for array in inputs)
        # Delegates are prepared in the first step; later ones log nothing.
        log = NativeLog()
        try:
            with nullcontext(log) if self._executed else native_log() as log:
                results = self._module.run_method(_METHOD, tensors, clone_outputs=True)
        except RuntimeError as error:
            raise RuntimeLoadError(f"ExecuTorch failed to execute a step: {error}.{log.reason()}") from error
        self._executed = True
        return [result.numpy() for result in results]

    def repeated(self, inputs: Sequence[AnyArray]) -> Callable[[], object]:
        """A call with always the same inputs that converts and copies nothing, for measuring; `run` goes before it."""
        tensors = tuple(self._torch.from_numpy(contiguous(array)) for array in inputs)
        return partial(self._module.run_method, _METHOD, tensors, clone_outputs=False)


def _library() -> Any:
    require("torch", "to load the ExecuTorch runtime")
    # The public `portable_lib` imports the whole exporter, which takes seconds; this is the extension it wraps.
    require("executorch", "to execute .pte files")
    with native_log():
        return importlib.import_module("executorch.extension.pybindings._portable_lib")


def _load(library: Any, path: Path) -> Any:
    check_complete(path)
    log = NativeLog()
    try:
        with native_log() as log:
            module = library._load_for_executorch(str(path))
            module.method_meta(_METHOD)
    except (RuntimeError, IndexError) as error:
        raise RuntimeLoadError(
            f"ExecuTorch refuses to load {path}: {error}.{log.reason()} Convert the model again."
        ) from error
    return module


def open_executorch(path: Path, threads: int = 1) -> PortSession:
    """A session on a `.pte` file.

    Raises:
        ManifestError: The file has no valid port manifest, or one of another file.
        RuntimeLoadError: The runtime refuses the file.
        MissingExtraError: executorch is not installed.
    """
    manifest = read_manifest(path)
    ports = file_ports(path)
    if (len(ports.inputs), len(ports.outputs)) != (len(manifest.input_ports), len(manifest.output_ports)):
        raise ManifestError(
            f"{path} has {len(ports.inputs)} inputs and {len(ports.outputs)} outputs, its manifest lists "
            f"{len(manifest.input_ports)} and {len(manifest.output_ports)}. The manifest does not belong to this file."
        )
    return PortSession(manifest, ExecuTorchExecutable(path, threads))


def check_complete(path: Path) -> None:
    """Check the extended header of a `.pte` against the length of the file.

    Raises:
        RuntimeLoadError: The file is truncated or is no ExecuTorch program.
    """
    with path.open("rb") as stream:
        head = stream.read(64)
    length = path.stat().st_size
    if len(head) < 40 or head[4:6] != b"ET" or head[_HEADER_AT : _HEADER_AT + 4] != _HEADER_MAGIC:
        raise RuntimeLoadError(f"{path} is not an ExecuTorch program, or is truncated: it has {length} bytes.")
    (header_bytes,) = struct.unpack_from("<I", head, _HEADER_AT + 4)
    program, base = struct.unpack_from("<QQ", head, _HEADER_AT + 8)
    segments = struct.unpack_from("<Q", head, _HEADER_AT + 24)[0] if header_bytes >= 32 else 0
    end = max(program, base + segments)
    if end > length:
        raise RuntimeLoadError(f"{path} is truncated: its header promises {end} bytes, the file has {length}.")


def read_manifest(path: Path) -> PortManifest:
    """The port manifest that the method `mvtool_ports` of a `.pte` returns.

    Raises:
        ManifestError: There is no such method, or its text is not valid.
        RuntimeLoadError: The runtime refuses the file.
    """
    module = _load(_library(), path)
    if PORTS_METHOD not in module.method_names():
        raise ManifestError(f"{path} has no method {PORTS_METHOD!r}: it was not written by mvtool.")
    return PortManifest.from_json(module.run_method(PORTS_METHOD, ())[0], str(path))


def file_ports(path: Path) -> FilePorts:
    """Shapes and types of the arguments and results of `forward`.

    Raises:
        RuntimeLoadError: The runtime refuses the file.
    """
    meta = _load(_library(), path).method_meta(_METHOD)
    inputs = tuple(_file_port(meta.input_tensor_meta(i)) for i in range(meta.num_inputs()))
    outputs = tuple(_file_port(meta.output_tensor_meta(i)) for i in range(meta.num_outputs()))
    return FilePorts(inputs=inputs, outputs=outputs, scale_home=ScaleHome.NOWHERE)


def _file_port(info: Any) -> FilePort:
    return FilePort(None, tuple(info.sizes()), _TYPES.get(info.dtype(), "unknown"))
