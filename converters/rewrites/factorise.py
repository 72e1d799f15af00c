"""The (2+1)D rewrite: 3D kernels of a module become pairs of a convolution over space and one over time, by SVD.

A kernel of each channel is a matrix of kt rows and kh kw columns; its singular vectors are the pairs. With all of them the result is
the same; the best approximation with fewer is the one with the largest singular values (Eckart and Young 1936). A dense kernel
is one matrix of (O kt) rows and (I kh kw) columns.

The module is changed, not the graph: what is left can be trained on.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from mvtool.converters.rewrites.draft import Draft, relative_difference
from mvtool.errors import ConversionError, UsageError
from mvtool.program import RewriteReport, StreamProgram
from mvtool.streaming.conv import StreamConv3d
from mvtool.streaming.factored import FactoredConv3d, Pairs
from mvtool.streaming.padding import same_size
from mvtool.zoo.macs import count_step_macs

NAME: Final = "2plus1d"
FULL: Final = "full"
"""Word for the rank that changes nothing."""
LARGEST_DIFFERENCE: Final = 1e-4
"""Of a rewrite that keeps all pairs."""


@dataclass(frozen=True)
class Rank:
    """How many pairs a kernel gets.

    Attributes:
        pairs: So many, at most all; None where `energy` decides.
        energy: As few as hold this share of the kernel's squared norm, 0..1.
    """

    pairs: int | None = None
    energy: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Rank:
        """`full`, a number of pairs, or a share of energy with a point: `2plus1d:2`, `2plus1d:0.95`.

        Raises:
            UsageError: It is none of these.
        """
        if text == FULL:
            return cls()
        if text.isdecimal() and int(text) > 0:
            return cls(pairs=int(text))
        try:
            energy = float(text)
        except ValueError:
            energy = math.nan
        if not 0 < energy < 1:
            raise UsageError(
                f"{NAME} got the rank {text!r}; expected {FULL}, a whole number, or an energy between 0 and 1."
            )
        return cls(energy=energy)

    def of(self, energies: Tensor) -> int:
        """Pairs for the squared singular values `energies`, largest first."""
        if self.pairs is not None:
            return min(self.pairs, len(energies))
        if self.energy >= 1.0:
            return len(energies)
        held = energies.cumsum(0) / energies.sum().clamp_min(1e-300)
        return min(int((held < self.energy).sum()) + 1, len(energies))


@dataclass(frozen=True)
class Layer:
    """What became of one convolution.

    Attributes:
        name: Of the layer.
        rank: Pairs it got.
        full: Pairs that would change nothing.
        energy: Share of the kernel's squared norm that is kept.
        time_first: The order of the pair.
        macs: Multiply-adds for one output frame per output position, before and after.
        state: Elements that are remembered, before and after.
    """

    name: str
    rank: int
    full: int
    energy: float
    time_first: bool
    macs: tuple[float, float]
    state: tuple[int, int]


def factor(kernel: Tensor, depthwise: bool, rank: Rank) -> Pairs:
    """Factor a kernel.

    Args:
        kernel: `(O, I / groups, kt, kh, kw)`.
        depthwise: One input channel per output channel.
        rank: How many pairs.
    """
    outputs, inputs, frames, height, width = kernel.shape
    exact = kernel.detach().double()
    if depthwise:
        left, values, right = torch.linalg.svd(exact.reshape(outputs, frames, height * width), full_matrices=False)
        energies = values.square().sum(0)
        count = rank.of(energies)
        root = values[:, :count].sqrt()
        time = (left[:, :, :count] * root[:, None, :]).permute(2, 0, 1).reshape(count, outputs, 1, frames, 1, 1)
        space = (right[:, :count] * root[:, :, None]).permute(1, 0, 2).reshape(count, outputs, 1, 1, height, width)
    else:
        rows = exact.permute(0, 2, 1, 3, 4).reshape(outputs * frames, inputs * height * width)
        left, values, right = torch.linalg.svd(rows, full_matrices=False)
        energies = values.square()
        count = rank.of(energies)
        root = values[:count].sqrt()
        time = (left[:, :count] * root).reshape(outputs, frames, count).permute(0, 2, 1)[None, :, :, :, None, None]
        space = (right[:count] * root[:, None]).reshape(1, count, inputs, 1, height, width)
    kept = float(energies[:count].sum() / energies.sum().clamp_min(1e-300))
    return Pairs(space.to(kernel.dtype).contiguous(), time.to(kernel.dtype).contiguous(), kept)


def factorise(module: nn.Module, rank: Rank) -> tuple[RewriteReport, tuple[Layer, ...]]:
    """Replace every 3D kernel of `module` that spans space and time, in place.

    Args:
        module: Any module; its `nn.Conv3d` layers are replaced. A `mvtool.streaming.StreamConv3d` remembers what is cheaper to
            remember afterwards, another convolution keeps the state that its owner keeps for it.
        rank: How many pairs each gets.

    Raises:
        UsageError: There is no such kernel.
    """
    layers, left = [], []
    for name, conv in [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv3d)]:
        if min(conv.kernel_size[0], max(conv.kernel_size[1:])) == 1:
            continue
        if reason := _obstacle(conv) if name else "it is the whole model; wrap it in a module":
            left.append(f"{name or type(conv).__name__}: {reason}")
            continue
        made, layer = _factored(name, conv, rank)
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, made.train(conv.training))
        layers.append(layer)
    if not layers:
        raise UsageError(
            f"{NAME} found no convolution over space and time that it can factor. {'; '.join(left)}".strip()
        )
    details = tuple(
        f"{layer.name}: rank {layer.rank} of {layer.full}, {layer.energy:.4f} of the energy, "
        f"{'time' if layer.time_first else 'space'} first, {layer.macs[0]:g} to {layer.macs[1]:g} multiply-adds per position, "
        f"state {layer.state[0]} to {layer.state[1]}"
        for layer in layers
    )
    return RewriteReport(NAME, len(layers), 0.0, details, tuple(left)), tuple(layers)


def parse(rewrite: str) -> Rank:
    """The rank of `2plus1d` or `2plus1d:RANK`; full if none is given.

    Raises:
        UsageError: It is another rewrite, or the rank is none.
    """
    name, _, rank = rewrite.partition(":")
    if name != NAME:
        raise UsageError(f"--rewrite got {rewrite!r}; known is {NAME}, or {NAME}:RANK.")
    return Rank.parse(rank or FULL)


def rewritten(module: nn.Module, rank: Rank) -> tuple[nn.Module, RewriteReport]:
    """A factorised copy of `module`, which is not changed.

    Raises:
        UsageError: There is nothing to factor.
    """
    made = copy.deepcopy(module)
    return made, factorise(made, rank)[0]


def judged(report: RewriteReport, rank: Rank, before: StreamProgram, after: StreamProgram) -> RewriteReport:
    """The report with what the rewrite costs and saves as a whole, and the difference that it makes to the outputs of some rolled steps.

    Args:
        report: Of `rewritten`.
        rank: That was asked for.
        before: Captured from the model as it was.
        after: Captured from the rewritten one.

    Raises:
        ConversionError: All pairs were kept, and the result is not the same.
    """
    pairs = zip(Draft(after).outputs(), Draft(before).outputs(), strict=True)
    difference = max(relative_difference(found, expected) for found, expected in pairs)
    if rank == Rank() and not difference <= LARGEST_DIFFERENCE:
        raise ConversionError(
            f"The rewrite {NAME} with all pairs changed the results by {difference:.1e} of the largest value; at most "
            f"{LARGEST_DIFFERENCE:.0e} is rounding. Please report this model."
        )
    whole = (
        f"one call: {_thousands(count_step_macs(before))} to {_thousands(count_step_macs(after))} multiply-adds, "
        f"states {_thousands(_remembered(before))} to {_thousands(_remembered(after))} elements"
    )
    return replace(report, max_difference=difference, details=(whole, *report.details))


def _remembered(program: StreamProgram) -> int:
    return sum(math.prod(state.input.shape) for state in program.states)


def _thousands(count: int) -> str:
    return f"{count / 1000:,.0f} thousand"


def _obstacle(conv: nn.Conv3d) -> str | None:
    if conv.groups > 1 and not conv.groups == conv.in_channels == conv.out_channels:
        return f"{conv.groups} groups of several channels"
    if set(conv.dilation) != {1}:
        return "dilation"
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return f"padding {conv.padding!r} of mode {conv.padding_mode}"
    return None


def _factored(name: str, conv: nn.Conv3d, rank: Rank) -> tuple[FactoredConv3d, Layer]:
    depthwise = conv.groups > 1
    pairs = factor(conv.weight, depthwise, rank)
    count = len(pairs.space) if depthwise else pairs.space.shape[1]
    before, behind = _state(conv, count)
    time_first = depthwise and _time_first(conv, before, behind)
    made = FactoredConv3d(conv, pairs, time_first=time_first)
    full = min(conv.kernel_size[0], math.prod(conv.kernel_size[1:]))
    if not depthwise:
        full = min(conv.out_channels * conv.kernel_size[0], conv.in_channels * math.prod(conv.kernel_size[1:]))
    layer = Layer(
        name,
        count,
        full,
        pairs.energy,
        time_first,
        _macs(conv, count, time_first),
        (before, before if time_first else behind),
    )
    return made, layer


def _state(conv: nn.Conv3d, count: int) -> tuple[int, int]:
    """Elements remembered in front of the convolution, and between the two of the pair."""
    if not isinstance(conv, StreamConv3d) or conv.stream is None:
        return 0, 0
    batch, channels, frames, height, width = conv.stream.buffer.shape
    area = same_size(height, conv.stride[1]) * same_size(width, conv.stride[2])
    between = count * channels if conv.groups > 1 else count
    return conv.stream.buffer.numel(), batch * between * frames * area


def _time_first(conv: nn.Conv3d, before: int, behind: int) -> bool:
    if before != behind:
        return before < behind
    # Without a state of its own the window is somebody else's: time first leaves one frame of it for the kernels over space.
    return not isinstance(conv, StreamConv3d)


def _macs(conv: nn.Conv3d, count: int, time_first: bool) -> tuple[float, float]:
    """Multiply-adds per output frame and output position, of the 3D kernel and of the pairs."""
    kt, kh, kw = conv.kernel_size
    before = float(conv.weight.numel())
    if conv.groups == 1:
        return before, float(count * (conv.in_channels * kh * kw + conv.out_channels * kt))
    area = conv.stride[1] * conv.stride[2] if time_first else 1
    return before, float(count * conv.out_channels * (kh * kw + kt * area))
