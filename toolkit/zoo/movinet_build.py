"""Building single MoViNets by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from mvtool.errors import SourceError
from mvtool.streaming import Activation, Gate
from mvtool.zoo import movinet_tables, movinet_tables_large
from mvtool.zoo.movinet import MoViNet, movinet
from mvtool.zoo.movinet_config import BASE, STREAM, STREAM_3D, Architecture, MoViNetConfig, Size, Variant

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        movinet_tables.NANO,
        movinet_tables.T0,
        movinet_tables.A0,
        movinet_tables.A1,
        movinet_tables.A2,
        movinet_tables.A3,
        movinet_tables_large.A4,
        movinet_tables_large.A5,
    )
}
_E = TypeVar("_E", Gate, Activation)
KINDS: dict[str, Variant] = {"base": BASE, "stream": STREAM, "stream_3d": STREAM_3D}
POSITIONAL = frozenset({"a3", "a4", "a5"})
"""Streams trained with the positional encoding (Model Garden)."""


def build(
    *,
    architecture: str,
    kind: str,
    num_classes: int = 600,
    resolution: int | Size,
    batch_size: int = 1,
    gate: str | None = None,
    head_activation: str | None = None,
    stochastic_depth: float = 0.2,
    rezero: float = 0.0,
) -> MoViNet:
    """Build one MoViNet in evaluation mode.

    Args:
        architecture: `nano`, `t0`, `a0` ... `a5`.
        kind: `base`, `stream` or `stream_3d`.
        num_classes: Width of the logits.
        resolution: Height and width, or one number for both.
        batch_size: N of the stream state.
        gate: A `Gate` value; the variant's own if not given.
        head_activation: An `Activation` value for the hidden dense layer; swish if not given.
        stochastic_depth: Largest drop rate of a layer's branch in training.
        rezero: First value of every ReZero scalar.

    Raises:
        SourceError: An argument has no meaning.
    """
    variant = _variant(architecture, kind)
    if gate is not None:
        variant = replace(variant, gate=_member(Gate, gate, "gate"))
    if head_activation is not None:
        variant = replace(variant, head_activation=_member(Activation, head_activation, "head activation"))
    size = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])
    return movinet(
        MoViNetConfig(ARCHITECTURES[architecture], variant, num_classes, size, batch_size, stochastic_depth, rezero)
    )


def _variant(architecture: str, kind: str) -> Variant:
    if architecture not in ARCHITECTURES or kind not in KINDS:
        raise SourceError(
            f"There is no MoViNet {architecture!r} of kind {kind!r}; architectures are {', '.join(ARCHITECTURES)}, "
            f"kinds {', '.join(KINDS)}."
        )
    return replace(KINDS[kind], positional=kind == "stream" and architecture in POSITIONAL)


def _member(kind: type[_E], value: str, what: str) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        raise SourceError(f"{value!r} is no {what}; known are {', '.join(kind)}.") from error
