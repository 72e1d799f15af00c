"""The ports that the model description promises, checked against the program.

Enum values are those of `FeatureTypes.proto` in coremltools 9.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.mlprogram.dtypes import FLOATS, DType, TensorType
from mvtool.runtimes.mlprogram.program import ColorLayout, Feature, ImageFeature, TensorFeature

_ARRAY_DTYPES = {
    65568: DType.FP32,
    65552: DType.FP16,
    65600: DType.FP64,
    131104: DType.INT32,
    131080: DType.INT8,
}
_COLOR_LAYOUTS = {10: ColorLayout.GRAYSCALE, 20: ColorLayout.RGB, 30: ColorLayout.BGR}
_ARRAY_FLEXIBILITY = ("ShapeFlexibility", "defaultOptionalValue")


def input_feature(proto: Any, arguments: Mapping[str, TensorType]) -> Feature:
    """Read one input of the model description.

    Args:
        proto: `Model_pb2.FeatureDescription`.
        arguments: Inputs that the program declares.

    Raises:
        RuntimeLoadError: The port has a kind, shape or type that is unsupported or not the program's.
    """
    declared = _declared(proto, arguments, "input")
    if proto.type.isOptional:
        raise RuntimeLoadError(f"Input {proto.name!r} is optional, which is not supported.")
    if proto.type.WhichOneof("Type") == "imageType":
        return _image(proto, declared)
    return _array(proto, declared, "Input")


def output_feature(proto: Any, results: Mapping[str, TensorType]) -> TensorFeature:
    """Read one output of the model description.

    Args:
        proto: `Model_pb2.FeatureDescription`.
        results: Types of the values that the program defines.

    Raises:
        RuntimeLoadError: As for `input_feature`; image outputs are not supported.
    """
    return _array(proto, _declared(proto, results, "output"), "Output")


def _declared(proto: Any, types: Mapping[str, TensorType], role: str) -> TensorType:
    if proto.name not in types:
        raise RuntimeLoadError(f"The model describes an {role} {proto.name!r} that its program does not have.")
    return types[proto.name]


def _array(proto: Any, declared: TensorType, role: str) -> TensorFeature:
    kind = proto.type.WhichOneof("Type")
    if kind != "multiArrayType":
        raise RuntimeLoadError(f"{role} {proto.name!r} is of type {kind!r}, which is not supported.")
    array = proto.type.multiArrayType
    if any(array.WhichOneof(group) for group in _ARRAY_FLEXIBILITY):
        raise RuntimeLoadError(f"{role} {proto.name!r} has a flexible shape or a default. Convert with fixed shapes.")
    dtype = _ARRAY_DTYPES.get(array.dataType)
    shape = tuple(int(extent) for extent in array.shape)
    # Core ML has no boolean array; coremltools describes outputs without a shape where it is the program's.
    if dtype is not declared.dtype or (shape and shape != declared.shape and declared.shape):
        raise RuntimeLoadError(
            f"{role} {proto.name!r} is described as {dtype} {list(shape)}, its program has {declared}."
        )
    return TensorFeature(proto.name, declared)


def _image(proto: Any, declared: TensorType) -> ImageFeature:
    image = proto.type.imageType
    layout = _COLOR_LAYOUTS.get(image.colorSpace)
    if layout is None or image.WhichOneof("SizeFlexibility"):
        raise RuntimeLoadError(
            f"Image input {proto.name!r} has colour space number {image.colorSpace} or a flexible size; "
            f"supported are {', '.join(_COLOR_LAYOUTS.values())} of fixed size."
        )
    channels = 1 if layout is ColorLayout.GRAYSCALE else 3
    expected = (1, channels, int(image.height), int(image.width))
    if declared.shape != expected or declared.dtype not in FLOATS:
        raise RuntimeLoadError(f"Image input {proto.name!r} of shape {expected} feeds a program input {declared}.")
    return ImageFeature(proto.name, layout, expected[2], expected[3], declared)
