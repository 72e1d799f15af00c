"""Which layer of the PyTorch model an operator of a file computes.

Exporters keep no names, and mvtool fuses and reorders, so that names would not be enough. What a file keeps is the values of its weights and the
names of its states, and those are evidence: an operator with weights belongs to the layer whose weights, after the rewrites, have the same
values, up to the rounding of int8; an operator that reads or writes a state belongs to the module that holds it. One between such operators lies in the
smallest module that holds all of them, where that is not the whole model, and one that joins several branches in the smallest module that holds
these. All else is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvtool.build import ArtifactEntry, Build
from mvtool.ports import AnyArray
from mvtool.profiling.record import LayerSource
from mvtool.profiling.written import Weight, Written, WrittenGraph
from mvtool.program import StreamProgram

HALF_STEP = 0.502
"""Of the rounding of int8; a little more than a half for the rounding of float32."""
FLOAT_ERROR = 1e-6
"""Of float weights, of their largest value: exporters may fold a constant in another order."""

Named = tuple[str | None, LayerSource]


@dataclass(frozen=True)
class KnownLayers:
    """What is known of the trained model.

    Attributes:
        weights: Number of values to the layers that have so many, each with its sorted values.
        modules: All modules, by their names.
    """

    weights: Mapping[int, Sequence[tuple[str, AnyArray]]]
    modules: tuple[str, ...]

    @classmethod
    def none(cls) -> KnownLayers:
        """Of a model whose program is not there."""
        return cls({}, ())

    @classmethod
    def of(cls, captured: StreamProgram, lowered: StreamProgram) -> KnownLayers:
        """The layers of a captured program, with the weights that its lowered form has."""
        from mvtool.quantization.layers import Layers, constants

        layers = Layers.of(captured)
        found: dict[int, list[tuple[str, AnyArray]]] = {}
        for name, value in constants(lowered).items():
            layer = layers.layer(name) if value.ndim > 1 else None
            if layer is not None:
                found.setdefault(value.size, []).append((layer, _sorted(value)))
        names = {*captured.exported.state_dict, *layers.of_prefix.values()}
        paths = {name.rsplit(".", cut)[0] for name in names for cut in range(name.count(".") + 1)}
        return cls(found, tuple(sorted(paths)))

    def of_weight(self, weight: Weight) -> str | None:
        """The one layer whose weights have these values; None where none or several have."""
        values = _sorted(weight.values)
        largest = float(np.abs(values).max(initial=0.0))
        allowed = max(HALF_STEP * weight.step, FLOAT_ERROR * largest)
        fits = {
            name
            for name, candidate in self.weights.get(values.size, ())
            if float(np.abs(candidate - values).max(initial=0.0)) <= allowed
        }
        return fits.pop() if len(fits) == 1 else None

    def of_port(self, port: str) -> str | None:
        """The module whose buffer a state port is named after, None for other ports."""
        fits = [module for module in self.modules if port.startswith(f"{module.replace('.', '_')}_")]
        return max(fits, key=len) if fits else None


def known_layers(build: Build, entry: ArtifactEntry) -> KnownLayers:
    """The layers of a build's model as one of its artifacts holds them.

    Raises:
        ManifestError: The captured program is not the one that the build manifest describes.
    """
    from mvtool.converters.lowering import lower
    from mvtool.converters.program_io import load_program
    from mvtool.converters.recipe import recorded_recipe

    build.check_hash(build.manifest.program)
    captured = load_program(build.path(build.manifest.program))
    return KnownLayers.of(captured, lower(captured, recorded_recipe(entry.runtime, entry.precision, entry.recipe)))


def name_layers(graph: WrittenGraph, known: KnownLayers, states: Iterable[str]) -> list[Named]:
    """The layer of each operator and how it was found.

    Args:
        graph: Operators in order of execution.
        known: Of the trained model.
        states: Names of the ports of states, on both sides.
    """
    held = set(states)
    homes = {tensor: known.of_port(port) for tensor, port in graph.ports.items() if port in held}
    named = [_evidence(operator, known, homes) for operator in graph.operators]
    before, joins = _nearest(graph.operators, named)
    after = _nearest_after(graph.operators, named)
    found: list[Named] = []
    for index, own in enumerate(named):
        if own[0] is not None:
            found.append(own)
            continue
        around = common_module([*before[index], *after[index]])
        if around is None and joins[index]:
            around = common_module(before[index])
        found.append((around, "between") if around else (None, "unknown"))
    return found


def common_module(layers: Iterable[str]) -> str | None:
    """The smallest module that holds all of some layers; None where that is the whole model, or there is none.

    Example:
        >>> common_module(["block.expand.conv", "block.project.conv"])
        'block'
    """
    split = [layer.split(".") for layer in layers]
    if not split:
        return None
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or None


def _evidence(operator: Written, known: KnownLayers, homes: Mapping[int, str | None]) -> Named:
    if operator.weight is not None and (layer := known.of_weight(operator.weight)):
        return layer, "weights"
    touched = {home for tensor in (*operator.reads, *operator.writes) if (home := homes.get(tensor))}
    return (touched.pop(), "state") if len(touched) == 1 else (None, "unknown")


def _nearest(operators: Sequence[Written], named: Sequence[Named]) -> tuple[list[tuple[str, ...]], list[bool]]:
    """For each operator the layers of the named operators that its inputs come from, without others between.

    Returns:
        These layers, and whether the operator is the first that reads them together.
    """
    reached: dict[int, frozenset[str]] = {}
    found, joins = [], []
    for operator, (layer, _) in zip(operators, named, strict=True):
        parts = [reached.get(tensor, frozenset()) for tensor in operator.reads]
        sources = frozenset[str]().union(*parts)
        found.append(tuple(sorted(sources)))
        joins.append(bool(sources) and sources not in parts)
        for tensor in operator.writes:
            reached[tensor] = frozenset({layer}) if layer else sources
    return found, joins


def _nearest_after(operators: Sequence[Written], named: Sequence[Named]) -> list[tuple[str, ...]]:
    """The same for the operators that read its results."""
    reached: dict[int, frozenset[str]] = {}
    found: list[tuple[str, ...]] = []
    for operator, (layer, _) in zip(reversed(operators), reversed(named), strict=True):
        sinks = frozenset[str]().union(*(reached.get(tensor, frozenset()) for tensor in operator.writes))
        found.append(tuple(sorted(sinks)))
        for tensor in operator.reads:
            reached[tensor] = reached.get(tensor, frozenset()) | (frozenset({layer}) if layer else sinks)
    return found[::-1]


def _sorted(values: AnyArray) -> AnyArray:
    """In one order whatever the order of axes: exporters transpose weights."""
    return np.sort(np.ascontiguousarray(values, dtype=np.float32), axis=None)
