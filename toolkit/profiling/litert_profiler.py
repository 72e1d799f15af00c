"""LiteRT's own profiler, per operator of XNNPACK, through the C interface of the wheel's `libLiteRt.so`.

The Python interface of ai-edge-litert 2.3.0 reaches neither the profiler nor the option that switches it on, so this
speaks to the library with ctypes. Profiling must be asked for when the model is compiled: the XNNPACK delegate then
times its operators and reports them after each inference. Signatures, option names and the layout of an event are
those of the headers of google-ai-edge/LiteRT (`litert/c`) as they are in 2.3.0; the layout is checked as it is read.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.errors import RuntimeLoadError
from mvtool.extras import require

CPU = 1
HOST_WRITES = 1
PROFILING = b"runtime_options_string", b"enable_profiling = true\n"
LIBRARY = "libLiteRt.so"
INVOKE_TAG = "Invoke"
DEFAULT_EVENT, OPERATOR_EVENT, DELEGATE_OPERATOR_EVENTS = 1, 2, (4, 8)
DTYPES = {1: np.float32, 2: np.int32, 3: np.uint8, 4: np.int64, 6: np.bool_, 7: np.int16, 9: np.int8, 10: np.float16}
TENSOR_TYPE_BYTES = 72
POISON = 0xABABABABABABABAB
NO_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)


class _Event(ctypes.Structure):
    """What the profiler hands out for one event; the six words in the middle are its memory before and after."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


WORDS = ctypes.sizeof(_Event) // 8


@dataclass(frozen=True)
class Timed:
    """One operator of one inference.

    Attributes:
        name: XNNPACK's operator with its types, or TFLite's for one that no delegate took.
        delegated: XNNPACK ran it.
        ms: Its time, in whole microseconds; below one it reads 0.
        node: Its index in the file if it is not delegated, else in its part of the delegate.
    """

    name: str
    delegated: bool
    ms: float
    node: int


@dataclass(frozen=True)
class Inference:
    """One profiled inference: its operators in order of execution, and the milliseconds of the whole."""

    operators: tuple[Timed, ...]
    ms: float


def library_path() -> Path:
    """The wheel's `libLiteRt.so`.

    Raises:
        MissingExtraError: ai-edge-litert is not installed.
        RuntimeLoadError: It has no such library.
    """
    package = require("ai_edge_litert", "to profile TFLite models")
    path = Path(str(package.__file__)).parent / LIBRARY
    if not path.is_file():
        raise RuntimeLoadError(f"ai-edge-litert has no {LIBRARY} in {path.parent}; install ai-edge-litert 2.3.0.")
    return path


class LiteRTModel:
    """A `.tflite` compiled for the CPU, fed with noise; it lives as long as the process.

    Args:
        path: The file.
        threads: Of the runtime.
        profiling: Let the delegate time its operators; `profile` needs it.

    Raises:
        RuntimeLoadError: A call of the library fails, or it lays out events in another way than 2.3.0.
    """

    def __init__(self, path: Path, threads: int = 1, profiling: bool = True) -> None:
        """Compile and feed the model."""
        self._options_text = [(b"xnnpack", f"num_threads = {threads}\n".encode()), *([PROFILING] if profiling else [])]
        self._library = ctypes.CDLL(str(library_path()))
        self._environment = self._make("LiteRtCreateEnvironment", 0, None)
        model = self._make("LiteRtCreateModelFromFile", self._environment, str(path).encode())
        self._compiled = self._make("LiteRtCreateCompiledModel", self._environment, model, self._options())
        self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._compiled) if profiling else None
        signature = self._make("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
        self._inputs = self._buffers(signature, "Input")
        self._outputs = self._buffers(signature, "Output")
        for buffer, dtype in zip(self._inputs[0], self._inputs[1], strict=True):
            self._fill(buffer, dtype)

    @property
    def fully_accelerated(self) -> bool:
        """The runtime's own word that every operator is delegated."""
        found = ctypes.c_bool()
        self._call("LiteRtCompiledModelIsFullyAccelerated", self._compiled, ctypes.byref(found))
        return found.value

    def run(self) -> None:
        """One inference; the profiler does not listen."""
        inputs, outputs = self._inputs[0], self._outputs[0]
        sizes = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(len(outputs))
        self._call("LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(0), sizes[0], inputs, sizes[1], outputs)

    def profile(self) -> Inference:
        """One inference with the profiler listening."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        self._call("LiteRtStopProfiler", self._profiler)
        events = list(self._events())
        whole = [e for e in events if e.kind == DEFAULT_EVENT and e.tag.decode() == INVOKE_TAG]
        if len(whole) != 1:
            raise RuntimeLoadError(
                f"the profiler gave {len(whole)} {INVOKE_TAG!r} events for one inference, expected 1"
            )
        return Inference(tuple(filter(None, map(_timed, events))), whole[0].elapsed_us / 1e3)

    def _events(self) -> Iterator[_Event]:
        """The events of the profiler, whose size is found by what of a poisoned buffer was overwritten."""
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        words = (ctypes.c_uint64 * (count.value * WORDS * 4))()
        poisoned = np.ctypeslib.as_array(words)
        poisoned[:] = POISON
        self._call("LiteRtGetProfilerEvents", self._profiler, count, words)
        written = 1 + int(np.flatnonzero(poisoned != POISON).max(initial=-1))
        if written != count.value * WORDS:
            raise RuntimeLoadError(
                f"{count.value} events took {written} words of 8 bytes, expected {count.value * WORDS}: "
                "this LiteRT lays events out in another way; use ai-edge-litert 2.3.0"
            )
        yield from ctypes.cast(words, ctypes.POINTER(_Event * count.value)).contents

    def _options(self) -> ctypes.c_void_p:
        """Options of the compilation; each payload is TOML text, which has to stay in memory."""
        options = self._make("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        self._payloads = [ctypes.create_string_buffer(text) for _, text in self._options_text]
        for (name, _), payload in zip(self._options_text, self._payloads, strict=True):
            self._call(
                "LiteRtAddOpaqueOptions", options, self._make("LiteRtCreateOpaqueOptions", name, payload, NO_DELETER)
            )
        return options

    def _buffers(self, signature: ctypes.c_void_p, side: str) -> tuple[Any, list[Any]]:
        """Buffers for one side of the signature, as the runtime wants them, and their element types."""
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        buffers = (ctypes.c_void_p * count.value)()
        dtypes = []
        for number in range(count.value):
            index = ctypes.c_size_t(number)
            tensor = self._make(f"LiteRtGetSignature{side}TensorByIndex", signature, index)
            kind = (ctypes.c_int * (TENSOR_TYPE_BYTES // 4))()
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            wanted = self._make(
                f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, ctypes.c_size_t(0), index
            )
            made = self._make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, wanted)
            buffers[number] = made.value
            dtypes.append(DTYPES[kind[0]])
        return buffers, dtypes

    def _fill(self, buffer: int, dtype: Any) -> None:
        handle, size, address = ctypes.c_void_p(buffer), ctypes.c_size_t(), ctypes.c_void_p()
        self._call("LiteRtGetTensorBufferPackedSize", handle, ctypes.byref(size))
        generator = np.random.default_rng(0)
        count = size.value // np.dtype(dtype).itemsize
        whole = np.issubdtype(dtype, np.integer)
        values = generator.integers(0 if dtype is np.uint8 else -100, 100, count) if whole else generator.random(count)
        self._call("LiteRtLockTensorBuffer", handle, ctypes.byref(address), HOST_WRITES)
        ctypes.memmove(address, values.astype(dtype).tobytes(), size.value)
        self._call("LiteRtUnlockTensorBuffer", handle)

    def _make(self, function: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function whose last argument is where it puts what it makes."""
        made = ctypes.c_void_p()
        self._call(function, *arguments, ctypes.byref(made))
        return made

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            raise RuntimeLoadError(f"{function} gave status {status}, expected 0; written for ai-edge-litert 2.3.0")


def _timed(event: _Event) -> Timed | None:
    """An operator's event, without what is no operator and without the node that stands for a whole delegate."""
    name = event.tag.decode()
    delegated = event.kind in DELEGATE_OPERATOR_EVENTS
    if not delegated and (event.kind != OPERATOR_EVENT or "Delegate" in name):
        return None
    return Timed(name, delegated, event.elapsed_us / 1e3, int(event.metadata[0]))
