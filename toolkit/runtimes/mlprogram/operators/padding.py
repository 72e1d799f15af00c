"""Padding of sliding windows, shared by convolution and pooling."""

from __future__ import annotations

from mvtool.runtimes.mlprogram.registry import Call

PAD_TYPES = ("valid", "custom", "same", "same_lower")


def window_padding(
    call: Call,
    extents: tuple[int, ...],
    kernel: list[int],
    strides: list[int],
) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial axis.

    `same` pads `max(0, ceil(extent / stride) * stride - extent + kernel - stride)` elements in total and
    puts the odd one at the end, `same_lower` at the start (`aggregated_pad` in coremltools 9.0, which
    decides the output shape; the prose of the operator's documentation differs for strides above 1).

    Args:
        call: Operation with the operands `pad_type` and `pad`.
        extents: Spatial shape of the input.
        kernel: Spatial extent of the window, dilation included.
        strides: Positive strides.
    """
    pad_type = call.text("pad_type", PAD_TYPES, default="valid")
    custom = call.integers("pad", default=[0] * (2 * len(kernel)), length=2 * len(kernel))
    if min(strides) < 1 or min(custom) < 0:
        raise call.error(f"strides {strides} or padding {custom} are out of range")
    if pad_type == "custom":
        return list(zip(custom[::2], custom[1::2], strict=True))
    if any(custom):
        raise call.error(f"padding {custom} contradicts pad_type {pad_type!r}")
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    return [_same(*axis, lower=pad_type == "same_lower") for axis in zip(extents, kernel, strides, strict=True)]


def flat_padding(padding: list[tuple[int, int]]) -> list[int]:
    """Return the padding in the order of `torch.nn.functional.pad`: last axis first."""
    return [amount for pair in reversed(padding) for amount in pair]


def is_symmetric(padding: list[tuple[int, int]]) -> bool:
    """Whether each axis is padded by the same amount before and after."""
    return all(before == after for before, after in padding)


def _same(extent: int, kernel: int, stride: int, lower: bool) -> tuple[int, int]:
    total = max(0, -(-extent // stride) * stride - extent + kernel - stride)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
