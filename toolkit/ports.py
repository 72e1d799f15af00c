"""The port manifest (`mvtool.ports/1`): what an app must know to feed one artifact.

It is embedded in every artifact (TFLite metadata, Core ML user-defined metadata, an ExecuTorch
constant method) and repeated in the build manifest. It holds no hash, date, path or verification
result, so that two conversions of the same input give the same bytes.

Every tensor of an artifact is a `TensorPort`. A port is related to the tensor of the trained model,
the *logical* tensor, by

    port = (logical * multiplier).transpose(permutation).reshape(shape)

and, where `quantization` is given, `stored = clip(round(port / scale) + zero_point)`.
"""

from __future__ import annotations

import base64
import math
from enum import StrEnum
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvtool import slots
from mvtool.errors import ManifestError

PORTS_SCHEMA = "mvtool.ports/1"

DType = Literal["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
AnyArray = NDArray[Any]


def contiguous(array: AnyArray) -> AnyArray:
    """`array` in C order, copied where it is not; `np.ascontiguousarray` would give a scalar an axis.

    Example:
        >>> contiguous(np.zeros(())).shape
        ()
    """
    return np.asarray(array, order="C")


class Runtime(StrEnum):
    """Runtime that executes an artifact."""

    TFLITE = "tflite"
    COREML = "coreml"
    EXECUTORCH = "executorch"


class Precision(StrEnum):
    """Arithmetic of the bulk of an artifact's operators.

    Attributes:
        FP32: float32.
        FP16: float16.
        INT8: int8 weights and activations, scales calibrated beforehand.
        INT8_DYNAMIC: int8 weights; kernels round float32 activations to 8 bits at run time.
        INT8_WEIGHTS: float32 with int8 weights in the file.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT8_DYNAMIC = "int8-dynamic"
    INT8_WEIGHTS = "int8-weights"

    @property
    def quantized(self) -> bool:
        """Whether weights are int8; such an artifact is held against a simulation, not against the float program."""
        return self in (Precision.INT8, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS)

    @property
    def arithmetic(self) -> Precision:
        """The precision in which most kernels multiply: fp32, fp16 or int8."""
        return {Precision.INT8_DYNAMIC: Precision.INT8, Precision.INT8_WEIGHTS: Precision.FP32}.get(self, self)


class StateLayout(StrEnum):
    """How artifacts hold a queue of past frames.

    SHIFT: One port in and one out; the graph moves the frames.
    RING: A port in for every frame and one out for each new one; the app moves pointers.
    """

    SHIFT = "shift"
    RING = "ring"


class StateForm(StrEnum):
    """How a state tensor holds the past."""

    FIFO = "fifo"
    RING = "ring"
    MEAN = "mean"
    COUNTER = "counter"
    PHASE = "phase"
    OPAQUE = "opaque"


class Document(BaseModel):
    """Base of every manifest part: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantization(Document):
    """Affine quantization of a port: `real = scale * (stored - zero_point)`."""

    scale: float = Field(gt=0)
    zero_point: int


class TensorPort(Document):
    """One input or output tensor of an artifact.

    Attributes:
        name: Name in the artifact, unique among inputs and outputs together. A `.pte` knows
            positions only; there the name exists in this manifest alone.
        position: Index among the artifact's inputs, or among its outputs.
        shape: Shape in the artifact, at most 4 axes.
        dtype: Element type in the artifact.
        logical_shape: Shape of the trained model's tensor.
        permutation: Axis order that leads from the logical tensor to the port.
        layout: Axis letters of the port, for example `NHWC`, where they are known.
        multiplier: Factor between the logical tensor and the real value at the port.
        quantization: Given where `dtype` is int8 or uint8 and holds real numbers.
        grid: Given where a float port carries values of an int8 grid, since Core ML has no int8 ports.
    """

    name: Identifier
    position: int = Field(ge=0)
    shape: tuple[int, ...] = Field(max_length=4)
    dtype: DType
    logical_shape: tuple[int, ...]
    permutation: tuple[int, ...]
    layout: str | None = None
    multiplier: float = Field(default=1.0, gt=0)
    quantization: Quantization | None = None
    grid: Quantization | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TensorPort:
        if math.prod(self.shape) != math.prod(self.logical_shape):
            raise ValueError(f"shape {self.shape} and logical shape {self.logical_shape} differ in size")
        if sorted(self.permutation) != list(range(len(self.logical_shape))):
            raise ValueError(f"{self.permutation} is not a permutation of the axes of {self.logical_shape}")
        return self

    @property
    def size_bytes(self) -> int:
        """Size of the tensor in the artifact."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def encode(self, logical: AnyArray) -> AnyArray:
        """Turn a tensor of the trained model into what the artifact takes.

        Args:
            logical: Shape `logical_shape`; real numbers.

        Returns:
            Shape `shape`, type `dtype`, C-contiguous.

        Raises:
            ManifestError: The shape differs, or an integer port cannot hold a value.
        """
        if tuple(logical.shape) != self.logical_shape:
            raise ManifestError(f"Port {self.name!r} got shape {tuple(logical.shape)}, expected {self.logical_shape}.")
        port = np.asarray(logical).transpose(self.permutation).reshape(self.shape)
        if self.multiplier != 1.0:
            port = port * np.float32(self.multiplier)
        if self.quantization is not None:
            info = np.iinfo(self.dtype)
            # float32 division, as the runtimes do it: 255 camera levels come back exactly.
            steps = np.rint(port.astype(np.float32) / np.float32(self.quantization.scale))
            port = np.clip(steps + self.quantization.zero_point, info.min, info.max)
        else:
            self._check_range(port)
        return contiguous(port.astype(self.dtype))

    def _check_range(self, values: AnyArray) -> None:
        if self.dtype == "bool" or np.can_cast(values.dtype, self.dtype) or not self.dtype.startswith(("int", "uint")):
            return
        info = np.iinfo(self.dtype)
        low, high = (values.min(), values.max()) if values.size else (0, 0)
        if not (info.min <= low and high <= info.max):
            found = "a value that is not a number" if np.isnan(low) else f"values from {low} to {high}"
            raise ManifestError(
                f"Port {self.name!r} got {found}; {self.dtype} holds {info.min} to {info.max}. Keep the numbers within "
                "that range, for example by counting modulo a period."
            )

    def decode(self, stored: AnyArray) -> AnyArray:
        """Turn what the artifact gives into a tensor of the trained model.

        Args:
            stored: Shape `shape`, type `dtype`.

        Returns:
            Shape `logical_shape`; float32 for real numbers, else the stored type.
        """
        real = np.asarray(stored).reshape(self.shape)
        if self.quantization is not None:
            # Exact: both are integers of at most 24 bits.
            real = real.astype(np.float32)
            real -= np.float32(self.quantization.zero_point)
            real *= np.float32(self.quantization.scale)
        elif self.dtype == "float16":
            real = real.astype(np.float32)
        if self.multiplier != 1.0:
            real = real / np.float32(self.multiplier)
        permuted = [self.logical_shape[axis] for axis in self.permutation]
        return real.reshape(permuted).transpose(np.argsort(self.permutation))

    @property
    def step(self) -> float:
        """Logical value of one quantization step, 0.0 for a port without one."""
        grid = self.quantization or self.grid
        return grid.scale / self.multiplier if grid else 0.0


class InputPort(TensorPort):
    """A model input that is not state.

    Attributes:
        image: The input holds video frames; `logical_layout` and `layout` then name its axes.
        logical_layout: Axis letters of the logical tensor, for example `NCTHW`.
        core_ml_image: The Core ML artifact declares this input as an image type.
    """

    image: bool = False
    logical_layout: str | None = None
    core_ml_image: bool = False


class OutputPort(TensorPort):
    """A model output that is not state.

    Attributes:
        meaning: `logits` where a classifier's scores leave the model, else free text.
    """

    meaning: str = ""


class ResetBytes(Document):
    """Exact bytes of a state port before the first frame, little-endian.

    Attributes:
        element_hex: One element, repeated over the whole port; used when all elements are equal.
        base64: All bytes of the port; used otherwise.
    """

    element_hex: str | None = None
    base64: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> ResetBytes:
        if (self.element_hex is None) == (self.base64 is None):
            raise ValueError("exactly one of element_hex and base64 must be given")
        return self

    @classmethod
    def of(cls, stored: AnyArray) -> ResetBytes:
        """Describe the stored value `stored` (any shape) of a port."""
        flat = np.ascontiguousarray(stored).reshape(-1)
        element = flat[:1].tobytes()
        if flat.tobytes() == element * flat.size:
            return cls(element_hex=element.hex())
        return cls(base64=base64.b64encode(flat.tobytes()).decode("ascii"))

    def array(self, port: TensorPort) -> AnyArray:
        """The reset value of `port`, as stored.

        Raises:
            ManifestError: The bytes do not fit the port's shape and type.
        """
        count = math.prod(port.shape)
        try:
            raw = bytes.fromhex(self.element_hex) * count if self.element_hex else base64.b64decode(self.base64 or "")
            return np.frombuffer(raw, dtype=port.dtype).reshape(port.shape).copy()
        except ValueError as error:
            raise ManifestError(
                f"The reset bytes of state port {port.name!r} do not fill shape {port.shape} of {port.dtype}: {error}. "
                "Convert the model again."
            ) from error


class LogicalState(Document):
    """A state of the trained model, the same in every artifact of a build.

    Attributes:
        name: Name shared by all artifacts.
        source: Where it lives in the module: a buffer's dotted name, or `input=output`.
        meaning: What it holds, in words.
        shape: Shape in the trained model.
        dtype: Element type in the trained model.
        frames_held: Number of past frames that it holds, where that is a fixed number.
    """

    name: Identifier
    source: str
    meaning: str
    shape: tuple[int, ...]
    dtype: DType
    frames_held: int | None = None


class StateBinding(Document):
    """How one artifact holds one logical state.

    Attributes:
        state: Name of the `LogicalState`.
        form: How the port holds the past.
        input: Port that takes the state before a step.
        output: Port that gives the state after the step; feed it to `input` unchanged.
        reset: Bytes of `input` before the first frame.
    """

    state: Identifier
    form: StateForm
    input: TensorPort
    output: TensorPort
    reset: ResetBytes

    @property
    def inputs(self) -> tuple[TensorPort, ...]:
        """The ports in, as for a ring."""
        return (self.input,)

    @property
    def outputs(self) -> tuple[TensorPort, ...]:
        """The ports out, as for a ring."""
        return (self.output,)

    @model_validator(mode="after")
    def _ports_agree(self) -> StateBinding:
        if self.form is StateForm.RING:
            raise ValueError(f"state {self.state!r} is a ring, which has `axis`, `inputs` and `outputs`")
        _check_alike(self.state, self.inputs, self.outputs)
        return self


class RingBinding(Document):
    """How one artifact holds a logical state in slots, one for each entry of a queue.

    A step takes all slots and gives the newest entries alone. For the next step, with n outputs, input i takes what
    input i + n took in this one, and the last n inputs take the outputs, all unchanged. Only pointers need to move.

    Attributes:
        state: Name of the `LogicalState`.
        form: Always `ring`.
        axis: Axis of the logical state that the slots lie along.
        inputs: Ports that take the slots before a step, oldest first.
        outputs: Ports that give the newest entries, oldest first.
        reset: Bytes of all `inputs` before the first frame, one after another.
    """

    state: Identifier
    form: Literal[StateForm.RING]
    axis: int = Field(ge=0)
    inputs: tuple[TensorPort, ...] = Field(min_length=2)
    outputs: tuple[TensorPort, ...] = Field(min_length=1)
    reset: ResetBytes

    @property
    def input(self) -> TensorPort:
        """All slots as one tensor: the form of `Session.state`. The artifact has no such port."""
        return slots.whole_port(self.state, self.inputs, self.axis)

    @property
    def output(self) -> TensorPort:
        """The same, after the step."""
        return self.input

    @model_validator(mode="after")
    def _slots_agree(self) -> RingBinding:
        _check_alike(self.state, self.inputs, self.outputs)
        shape = self.inputs[0].logical_shape
        if self.axis >= len(shape) or shape[self.axis] != 1:
            raise ValueError(f"a slot of state {self.state!r} has shape {shape}; axis {self.axis} must have size 1")
        if len(self.outputs) >= len(self.inputs):
            raise ValueError(f"state {self.state!r} has {len(self.outputs)} outputs for {len(self.inputs)} slots")
        return self


Binding = StateBinding | RingBinding
"""How one artifact holds one logical state. Both have `inputs` and `outputs`, the ports of the artifact, and `input` and `output`,
ports that describe the state in one tensor."""


def _check_alike(state: str, inputs: tuple[TensorPort, ...], outputs: tuple[TensorPort, ...]) -> None:
    for field in ("shape", "dtype", "logical_shape", "permutation", "multiplier", "quantization", "grid"):
        before = getattr(inputs[0], field)
        for after in (getattr(port, field) for port in (*inputs, *outputs)):
            if before != after:
                raise ValueError(
                    f"state {state!r} enters with {field} {before} and leaves with {after}; "
                    "both sides of the loop must agree"
                )


class Preprocessing(Document):
    """From a decoded video frame to the frame port's real values.

    In this order: colour conversion to `colour`, resize of the shorter side to `resize_short_side`,
    centre crop to `crop`, `x / 255 * (range[1] - range[0]) + range[0]`, `(x - mean) / std`.

    Attributes:
        resize_short_side: Pixels.
        crop: Height and width in pixels.
        colour: Channel order.
        range: Real values of the bytes 0 and 255.
        mean: Per channel, subtracted after scaling to `range`.
        std: Per channel, divided by after subtracting `mean`.
        interpolation: Filter of the resize; antialiased, half-pixel centres.
    """

    resize_short_side: int = Field(gt=0)
    crop: tuple[int, int]
    colour: Literal["RGB", "BGR"] = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: Literal["bilinear"] = "bilinear"


class PortManifest(Document):
    """Everything needed to feed one artifact; see the module docstring.

    Attributes:
        schema_id: Always `mvtool.ports/1`; the JSON key is `schema`.
        model: Name of the model.
        runtime: Runtime the artifact is for.
        precision: Arithmetic of the artifact.
        untrained: The weights are a deterministic fill, so labels mean nothing.
        frames_per_step: Video frames that one call consumes.
        frame_rate: Frames per second that the model was trained at.
        preprocessing: For video models.
        inputs: Inputs that are not state; the video frame comes first.
        logical_states: States of the trained model.
        states: How this artifact holds each of them, in the same order.
        outputs: Outputs that are not state.
        labels: Name of the label set of the `logits` output, for example `kinetics600`.
        class_names: The labels in order, where they are no list that ships with mvtool.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.ports/1"] = Field(default="mvtool.ports/1", alias="schema")
    model: str
    runtime: Runtime
    precision: Precision
    untrained: bool = False
    frames_per_step: int = Field(default=1, ge=1)
    frame_rate: float | None = None
    preprocessing: Preprocessing | None = None
    inputs: tuple[InputPort, ...] = Field(min_length=1)
    logical_states: tuple[LogicalState, ...] = ()
    states: tuple[Binding, ...] = ()
    outputs: tuple[OutputPort, ...] = ()
    labels: str | None = None
    class_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> PortManifest:
        if [s.name for s in self.logical_states] != [b.state for b in self.states]:
            raise ValueError("states and logical_states must list the same names in the same order")
        for ports in (self.input_ports, self.output_ports):
            if [p.position for p in ports] != list(range(len(ports))):
                raise ValueError(f"port positions must be 0..{len(ports) - 1}, each used once")
        names = [p.name for p in (*self.input_ports, *self.output_ports)]
        if len(set(names)) != len(names):
            raise ValueError("port names must be unique among inputs and outputs together")
        return self

    @property
    def input_ports(self) -> list[TensorPort]:
        """All inputs of the artifact in position order."""
        return sorted((*self.inputs, *(p for b in self.states for p in b.inputs)), key=lambda p: p.position)

    @property
    def output_ports(self) -> list[TensorPort]:
        """All outputs of the artifact in position order."""
        return sorted((*self.outputs, *(p for b in self.states for p in b.outputs)), key=lambda p: p.position)

    def to_json(self) -> str:
        """Canonical JSON: the same manifest always gives the same text."""
        return self.model_dump_json(by_alias=True, exclude_defaults=False)

    @classmethod
    def from_json(cls, text: str | bytes, origin: str) -> PortManifest:
        """Parse a manifest; `origin` names the file in error messages.

        Raises:
            ManifestError: Not JSON, an unknown key, a missing key or an inconsistent value.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ManifestError(
                f"The port manifest in {origin} is not valid: {error}. Convert the model again."
            ) from error
