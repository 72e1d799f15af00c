"""The parsed form of an ML program: what a `.mlpackage` says, with every constant decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import ManifestError
from mvtool.runtimes.mlprogram.dtypes import TensorType


@dataclass(frozen=True)
class Constant:
    """A value known at load time.

    Attributes:
        type: Element type and shape.
        value: Array of that shape, or a `str` for a scalar string.
    """

    type: TensorType
    value: NDArray[Any] | str


@dataclass(frozen=True)
class Reference:
    """The value that an earlier operation or a program input defines."""

    name: str


Operand = Constant | Reference


@dataclass(frozen=True)
class NamedType:
    """A value that an operation or the function's signature declares."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        kind: Operator type, for example `conv`.
        inputs: Parameter name to operands; several operands make a tuple (`concat`).
        outputs: Declared results.
    """

    kind: str
    inputs: Mapping[str, tuple[Operand, ...]]
    outputs: tuple[NamedType, ...]

    @property
    def name(self) -> str:
        """Name of the first result, which identifies the operation in messages."""
        return self.outputs[0].name if self.outputs else "(no output)"


class ColorLayout(StrEnum):
    """Order of the channels that Core ML hands to the program."""

    GRAYSCALE = "grayscale"
    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True)
class TensorFeature:
    """A multi-array port of the model."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class ImageFeature:
    """An image port of the model.

    Core ML passes pixel values 0..255 of a `(1, C, H, W)` tensor. `ct.ImageType(scale=..., bias=...)`
    leaves nothing in the port: coremltools 9.0 writes scale and bias as `mul` and `add` operations at
    the start of the program.

    Attributes:
        name: Port name.
        layout: Colour order of the channel axis.
        height_px: Rows.
        width_px: Columns.
        type: The program's tensor, `(1, 3, H, W)` or `(1, 1, H, W)` for grayscale.
    """

    name: str
    layout: ColorLayout
    height_px: int
    width_px: int
    type: TensorType

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Arrange an image as the port's tensor.

        Args:
            pixels: `(H, W, 3)` in RGB order, or `(H, W)` for grayscale, uint8.

        Returns:
            `(1, C, H, W)` uint8 in the port's colour order.

        Raises:
            ManifestError: The image has another size or number of channels.
        """
        gray = self.layout is ColorLayout.GRAYSCALE
        expected = (self.height_px, self.width_px) if gray else (self.height_px, self.width_px, 3)
        if pixels.shape != expected or pixels.dtype != np.uint8:
            raise ManifestError(
                f"Image port {self.name!r}: got {pixels.dtype} of shape {pixels.shape}, expected uint8 {expected}."
            )
        if gray:
            return pixels[None, None]
        ordered = pixels[..., ::-1] if self.layout is ColorLayout.BGR else pixels
        return np.ascontiguousarray(ordered.transpose(2, 0, 1)[None])


Feature = TensorFeature | ImageFeature


@dataclass(frozen=True)
class MLProgram:
    """One function of an ML program, ready to be planned.

    Attributes:
        function: Name of the function, usually `main`.
        opset: Operator set, for example `CoreML7` (iOS 17).
        specification_version: Version of the model specification.
        inputs: Input ports in the order of the model description.
        outputs: Output ports in that order.
        constants: Value name to constant, from `const` operations.
        operations: All other operations in the order of execution.
        metadata: User-defined metadata of the model.
    """

    function: str
    opset: str
    specification_version: int
    inputs: tuple[Feature, ...]
    outputs: tuple[TensorFeature, ...]
    constants: Mapping[str, Constant]
    operations: tuple[Operation, ...]
    metadata: Mapping[str, str]
