"""Hold several neighbouring pixels of a row as the channels of one, for convolutions with few channels.

    (N, H, W, C) is (N, H, W / p, p * C): the same numbers in the same order

A matrix kernel computes 8 to 32 output channels at once and reads 4 or 8 input channels at once; a convolution from 3 to
8 channels leaves most of that idle. With `q` output pixels as one, its weight becomes that of a convolution from `p * C` to
`q * O` channels, `p = q * stride`, with zeros where an output pixel does not read an input pixel. So the sums are those of
before plus products with zero: the same in int8, and in fp32 up to the order of the additions. More is multiplied and less is
idle; which weighs more depends on the kernels of the machine, so a recipe names the convolutions (`mvtool convert --autotune`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from mvtool.converters.rewrites.draft import Changes
from mvtool.converters.rewrites.nodes import argument
from mvtool.errors import UsageError

aten = torch.ops.aten

NAME = "pack pixels"
PADS = (aten.pad.default, aten.constant_pad_nd.default)
UNARY = (
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.silu.default,
    aten.sigmoid.default,
)
"""Activations that an exporter may fuse with the convolution: they stay beside it."""
MOST_CHANNELS = 32
"""A convolution with more output channels fills the kernels of today's libraries."""


@dataclass(frozen=True)
class Site:
    """A convolution whose pixels could be packed.

    Attributes:
        operator: Its name in the captured program.
        node: The convolution.
        source: What it reads, before its padding.
        pads: Cells of zeros before and after, of the height and of the width.
        stride: Of height and width.
        weight: (O, C, height, width).
    """

    operator: str
    node: fx.Node
    source: fx.Node
    pads: tuple[int, int, int, int]
    stride: tuple[int, int]
    weight: Tensor

    def fits(self, pixels: int) -> bool:
        """Whether rows hold whole groups of `pixels` output pixels, over whole groups of input pixels."""
        width_in, width_out = (int(node.meta["val"].shape[3]) for node in (self.source, self.node))
        return width_out % pixels == 0 and width_in == width_out * self.stride[1]

    def packed(self, pixels: int) -> tuple[Tensor, tuple[int, int]]:
        """The weight (q * O, p * C, height, groups), and groups of zeros before and after a row."""
        outputs, channels, height, width = self.weight.shape
        group = pixels * self.stride[1]
        places = [
            (pixel, tap, *divmod(self.stride[1] * pixel + tap - self.pads[2], group))
            for pixel in range(pixels)
            for tap in range(width)
        ]
        first, last = min(place[2] for place in places), max(place[2] for place in places)
        weight = self.weight.new_zeros(pixels, outputs, group, channels, height, last - first + 1)
        for pixel, tap, group_number, inside in places:
            weight[pixel, :, inside, :, :, group_number - first] = self.weight[:, :, :, tap]
        return weight.reshape(pixels * outputs, group * channels, height, -1), (-first, last)


def sites(exported: ExportedProgram) -> Iterator[Site]:
    """Convolutions of a lowered program that may be packed: dense, not dilated, few output channels, zeros as padding."""
    for node in exported.graph.nodes:
        if node.target is aten.conv2d.default and (site := _site(exported, node)) is not None:
            yield site


def pack_pixels(exported: ExportedProgram, choices: Mapping[str, int], changes: Changes) -> None:
    """Pack convolutions, in place.

    Args:
        exported: Lowered program whose pictures are channels-last in memory.
        choices: Name of the convolution in the captured program to output pixels that become one.
        changes: Told of each.

    Raises:
        UsageError: A convolution cannot be packed so.
    """
    for operator, pixels in choices.items():
        site = next((site for site in sites(exported) if site.operator == operator), None)
        if site is None or not site.fits(pixels):
            raise UsageError(
                f"The recipe packs {pixels} pixels of the convolution {operator!r}, which this model does not have or "
                "whose rows are no multiple of that. Give a recipe of the same model and picture size."
            )
        _pack(exported, site, pixels)
        changes.did(f"convolution of {pixels} pixels as one")
    exported.graph.eliminate_dead_code()
    exported.graph.lint()
    exported.graph_module.recompile()


def activations(node: fx.Node) -> list[fx.Node]:
    """The activations that alone read `node`, one after the other."""
    found: list[fx.Node] = []
    while len(node.users) == 1:
        (node,) = node.users
        if node.target not in UNARY:
            break
        found.append(node)
    return found


def _site(exported: ExportedProgram, node: fx.Node) -> Site | None:
    held = exported.graph_signature.inputs_to_buffers.get(argument(node, 1).name)
    stride, padding, dilation, groups = _settings(node)
    if held is None or len(argument(node, 1).users) > 1 or dilation != (1, 1) or groups != 1:
        return None
    weight = exported.state_dict[held]
    if weight.shape[0] > MOST_CHANNELS or argument(node, 0).meta["val"].shape[2:] == (1, 1):
        return None
    source, pads = argument(node, 0), (padding[0], padding[0], padding[1], padding[1])
    if source.target in PADS:
        amounts = _zeros_around(source)
        if amounts is None or len(source.users) > 1:
            return None
        left, right, top, bottom = amounts
        pads = (pads[0] + top, pads[1] + bottom, pads[2] + left, pads[3] + right)
        source = argument(source, 0)
    operator = held.rsplit(".", 1)[-1].removesuffix("_weight")
    return Site(operator, node, source, pads, stride, weight)


def _settings(node: fx.Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    given = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False)) | node.kwargs
    stride, padding, dilation = (
        _pair(given.get(name, default)) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    groups: Any = given.get("groups", 1)
    return stride, padding, dilation, int(groups)


def _pair(value: Any) -> tuple[int, int]:
    numbers = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return (numbers[0], numbers[-1])


def _zeros_around(pad: fx.Node) -> tuple[int, int, int, int] | None:
    """Cells left, right, above and below that a padding with zeros adds to pictures; None for any other padding."""
    amounts = [*argument(pad, 1), 0, 0, 0, 0]
    rest = [value for value in (*pad.args[2:], *pad.kwargs.values()) if value not in ("constant", None)]
    if any(amounts[4:]) or any(value != 0 for value in rest) or min(amounts) < 0:
        return None
    return amounts[0], amounts[1], amounts[2], amounts[3]


def _pack(exported: ExportedProgram, site: Site, pixels: int) -> None:
    graph, node = exported.graph, site.node
    weight, (left, right) = site.packed(pixels)
    bias = argument(node, 2) if len(node.args) > 2 else None
    after = activations(node)
    last = after[-1] if after else node
    _hold(exported, argument(node, 1), weight)
    if bias is not None:
        name = exported.graph_signature.inputs_to_buffers[bias.name]
        _hold(exported, bias, exported.state_dict[name].repeat(pixels))
    with graph.inserting_before(last):
        value = _regrouped(graph, site.source, pixels * site.stride[1], 1)
        if any((left, right, *site.pads[:2])):
            value = _call(graph, aten.constant_pad_nd.default, value, [left, right, *site.pads[:2]], 0.0)
        value = _call(graph, aten.conv2d.default, value, argument(node, 1), bias, [site.stride[0], 1])
        for activation in after:
            value = _call(graph, activation.target, value, *activation.args[1:], **activation.kwargs)
        value = _regrouped(graph, value, 1, pixels)
    last.replace_all_uses_with(value)
    graph.eliminate_dead_code()


def _hold(exported: ExportedProgram, placeholder: fx.Node, value: Tensor) -> None:
    """Give a constant of the program another value, of another shape."""
    exported.state_dict[exported.graph_signature.inputs_to_buffers[placeholder.name]] = value
    placeholder.meta["val"] = placeholder.meta["val"].fake_mode.from_tensor(value, static_shapes=True)


def _regrouped(graph: fx.Graph, value: fx.Node, together: int, apart: int) -> fx.Node:
    """(N, C, H, W) with `together` pixels of a row as one, or each pixel as `apart`."""
    count, channels, height, width = value.meta["val"].shape
    last = _call(graph, aten.permute.default, value, [0, 2, 3, 1])
    shape = [count, height, width * apart // together, channels * together // apart]
    return _call(graph, aten.permute.default, _call(graph, aten.reshape.default, last, shape), [0, 3, 1, 2])


def _call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    node = graph.call_function(target, args, kwargs)
    values, named = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
    node.meta["val"] = target(*values, **named)
    return node
