"""Resizing of the last two axes."""

from __future__ import annotations

import torch

from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

SAMPLING_MODES = ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "OFFSET_CORNERS")


def grid_points(extent: int, target: int, mode: str) -> torch.Tensor:
    """Return where `target` samples lie in an axis of `extent` elements.

    Source: notes of `resize_bilinear` (iOS 15) in coremltools 9.0.

    Returns:
        float64 of shape `(target,)`, within `[0, extent - 1]`.
    """
    steps = torch.arange(target, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if target == 1:
            points = torch.full((1,), (extent - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0, dtype=torch.float64)
        else:
            points = steps * (extent - 1) / (target - 1)
    elif mode == "DEFAULT":
        points = steps * extent / target
    elif mode == "OFFSET_CORNERS":
        points = (steps + 0.5) * max(1, extent - 1) / target
    else:
        points = (steps + 0.5) * extent / target - 0.5
    return points.clamp(0, extent - 1)


@operator("upsample_bilinear")
def upsample_bilinear(call: Call) -> Kernel:
    """Linear interpolation by scale factors; the grid follows from the rounded result shape."""
    x = call.tensor("x")
    align = call.boolean("align_corners", True)
    half_pixel = call.boolean("half_pixel_centers", not align)
    modes = {(True, False): "STRICT_ALIGN_CORNERS", (False, True): "UNALIGN_CORNERS", (False, False): "DEFAULT"}
    if (align, half_pixel) not in modes:
        raise call.error("align_corners together with half_pixel_centers is not supported")
    return _bilinear(call, x.shape, _scaled(call, x.shape), modes[align, half_pixel])


@operator("resize_bilinear")
def resize_bilinear(call: Call) -> Kernel:
    """Linear interpolation to a given size."""
    x = call.tensor("x")
    target = [call.integer("target_size_height", 1), call.integer("target_size_width", 1)]
    return _bilinear(call, x.shape, target, call.text("sampling_mode", SAMPLING_MODES, default="DEFAULT"))


@operator("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(call: Call) -> Kernel:
    """Repeat elements by whole factors."""
    x = call.tensor("x")
    return _nearest(call, x.shape, _scaled(call, x.shape))


@operator("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(call: Call) -> Kernel:
    """Repeat elements up to a given size, a multiple of the input's."""
    x = call.tensor("x")
    return _nearest(call, x.shape, [call.integer("target_size_height"), call.integer("target_size_width")])


@operator("resize")
def resize(call: Call) -> Kernel:
    """Resize the last two axes to the last entries of `shape`; an entry 0 keeps the extent."""
    x = call.tensor("x")
    shape = call.integers("shape")
    if call.integer("resized_dims") != 2 or len(shape) < 2 or x.rank < 2:
        raise call.error(f"resizing {x} to {shape} is not supported, expected two resized axes")
    target = [wanted or extent for wanted, extent in zip(shape[-2:], x.shape[-2:], strict=True)]
    mode = call.text("sampling_mode", SAMPLING_MODES, default="DEFAULT")
    if call.text("interpolation_mode", ("LINEAR", "NEAREST_NEIGHBOR"), default="LINEAR") == "LINEAR":
        return _bilinear(call, x.shape, target, mode)
    if mode not in ("DEFAULT", "UNALIGN_CORNERS"):
        raise call.error(f"nearest neighbours with sampling_mode {mode!r} are not supported")
    return _nearest(call, x.shape, target)


def _scaled(call: Call, shape: tuple[int, ...]) -> list[int]:
    factors = call.number("scale_factor_height", 1.0), call.number("scale_factor_width", 1.0)
    return [int(factor * extent) for factor, extent in zip(factors, shape[-2:], strict=True)]


def _bilinear(call: Call, shape: tuple[int, ...], target: list[int], mode: str) -> Kernel:
    _check_target(call, target)
    for extent, wanted in zip(shape[-2:], target, strict=True):
        points = grid_points(extent, wanted, mode)
        low = points.floor().to(torch.int64)
        call.bind(low)
        call.bind((low + 1).clamp(max=extent - 1))
        call.bind((points - low).to(torch.float32))

    def kernel(x: torch.Tensor, *grid: torch.Tensor) -> torch.Tensor:
        top, bottom, down, left, right, across = grid
        x = torch.lerp(x.index_select(-2, top), x.index_select(-2, bottom), down[:, None])
        return torch.lerp(x.index_select(-1, left), x.index_select(-1, right), across)

    return kernel


def _nearest(call: Call, shape: tuple[int, ...], target: list[int]) -> Kernel:
    """Repeat elements. Which element other ratios take is not documented, so they are refused."""
    _check_target(call, target)
    if any(wanted % extent for wanted, extent in zip(target, shape[-2:], strict=True)):
        raise call.error(f"nearest neighbours from {shape[-2:]} to {target} are not supported, expected whole factors")
    rows, columns = (wanted // extent for wanted, extent in zip(target, shape[-2:], strict=True))
    return lambda x: x.repeat_interleave(rows, -2).repeat_interleave(columns, -1)


def _check_target(call: Call, target: list[int]) -> None:
    if min(target) < 1 or tuple(target) != call.output.shape[-2:]:
        raise call.error(f"the target size {target} contradicts the declared result {call.output}")
