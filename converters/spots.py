"""Operators of a captured program that have several exact forms, each taken out of it as a module of its own.

What surrounds an operator and shapes its code goes with it: a convolution's padding and activation, and, in a stream, the queue of
past frames that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, fx, nn

from mvtool.converters import places
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lowering import before_rank, lower
from mvtool.converters.recipe import Forms, Recipe, TemporalForm
from mvtool.converters.rewrites import pack_pixels
from mvtool.converters.rewrites.draft import Draft
from mvtool.converters.rewrites.nodes import argument
from mvtool.converters.rewrites.rank_convolution import is_temporal
from mvtool.ports import StateLayout
from mvtool.program import StreamProgram

if TYPE_CHECKING:
    from torch.export import ExportedProgram

aten = torch.ops.aten

Kind = Literal["temporal", "pixels"]
PACKS = (2, 4)
PAIRED = (("past", "output1"),)
"""State of an operator over a queue of frames."""


@dataclass(frozen=True)
class Spot:
    """An operator with several forms.

    Attributes:
        kind: What may differ.
        operator: Its name in the captured program.
        layer: Module path, for people.
        what: Sizes, for people.
        module: The operator alone.
        inputs: Its inputs.
        states: Pairs of states of `module`.
        forms: Names of the forms; the recipe's first.
        key: Equal for operators that take the same time.
    """

    kind: Kind
    operator: str
    layer: str
    what: str
    module: nn.Module
    inputs: tuple[InputSpec, ...]
    states: tuple[tuple[str, str], ...]
    forms: tuple[str, ...]
    key: tuple[object, ...]


def spots(program: StreamProgram, recipe: Recipe, layout: StateLayout) -> list[Spot]:
    """The operators of a captured program that have several forms under `recipe`."""
    draft, _ = before_rank(program, recipe, layout)
    layers = {node.name: places.layer_of_node(node) for node in draft.module.graph.nodes}
    found = list(_temporal(draft, recipe, layers))
    if recipe.channels_last_ports:
        found += _packable(lower(program, recipe, layout).exported, layers)
    return found


def _temporal(draft: Draft, recipe: Recipe, layers: Mapping[str, str]) -> Iterator[Spot]:
    """Depthwise convolutions over time."""
    for node in draft.module.graph.nodes:
        if node.target is not aten.conv3d.default:
            continue
        weight = draft.constant(argument(node, 1))
        if weight is None or not is_temporal(node, weight):
            continue
        constants = {_buffer(n): draft.constant(n) for n in node.all_input_nodes[1:]}
        alone = _Alone([node], {name: value for name, value in constants.items() if value is not None})
        source = argument(node, 0)
        window = tuple(source.meta["val"].shape)
        added = _added(source)
        key = ("temporal", window, added, tuple(weight.shape), node.args[3:])
        what = f"{weight.shape[2]} frames, {'x'.join(map(str, (window[1], *window[3:])))}"
        others = [form for form in (TemporalForm.DEPTHWISE, TemporalForm.TAPS) if form is not recipe.temporal]
        forms = tuple(str(form) for form in (recipe.temporal, *others))
        layer = layers.get(node.name, "")
        if added is None:
            yield Spot("temporal", node.name, layer, what, alone, (_spec("window", window),), (), forms, key)
            continue
        new, past = (*window[:2], added, *window[3:]), (*window[:2], window[2] - added, *window[3:])
        inputs = (_spec("new", new), _spec("past", past))
        yield Spot("temporal", node.name, layer, what, _Window(alone, added), inputs, PAIRED, forms, key)


def _added(source: fx.Node) -> int | None:
    """New frames behind those of a state in a window; None for a window of another kind."""
    if source.target is not aten.cat.default or argument(source, 1) != 2:
        return None
    *held, new = argument(source, 0)
    if not held or any(node.op != "placeholder" for node in held):
        return None
    return int(new.meta["val"].shape[2])


def _packable(exported: ExportedProgram, layers: Mapping[str, str]) -> Iterator[Spot]:
    """Convolutions whose pixels can be packed, with their padding and activation."""
    for site in pack_pixels.sites(exported):
        forms = tuple(str(pixels) for pixels in PACKS if site.fits(pixels))
        if not forms:
            continue
        chain = [node for node in (argument(site.node, 0), site.node) if node is not site.source]
        chain += pack_pixels.activations(site.node)
        shape = tuple(site.source.meta["val"].shape)
        held = exported.graph_signature.inputs_to_buffers
        names = {n: held[n.name] for node in chain for n in node.all_input_nodes if n.name in held}
        alone = _Alone(chain, {_buffer(node): exported.state_dict[name] for node, name in names.items()})
        outputs, channels, *kernel = site.weight.shape
        what = f"{'x'.join(map(str, kernel))} from {channels} to {outputs}, {'x'.join(map(str, shape[2:]))}"
        settings = tuple((str(node.target), str(_plain(node))) for node in chain)
        key = ("pixels", shape, tuple(site.weight.shape), settings)
        inputs = (_spec("value", shape),)
        layer = layers.get(site.operator, "")
        yield Spot("pixels", site.operator, layer, what, alone, inputs, (), ("1", *forms), key)


def _plain(node: fx.Node) -> list[object]:
    """The arguments of an operator that are no tensors."""
    return [value for value in (*node.args, *node.kwargs.values()) if not isinstance(value, fx.Node)]


def _spec(name: str, shape: Sequence[int]) -> InputSpec:
    return InputSpec(name, tuple(int(size) for size in shape), image=False)


def form_alone(spot: Spot, program: StreamProgram, recipe: Recipe, form: str) -> Forms:
    """A form of `spot`, as that of the only operator of the program of its module, which has a name of its own there."""
    if form == spot.forms[0]:
        return Forms()
    if spot.kind == "temporal":
        (operator,) = (node.name for node in program.exported.graph.nodes if node.target is aten.conv3d.default)
    else:
        (operator,) = (site.operator for site in pack_pixels.sites(lower(program, recipe).exported))
    return Forms.model_validate({spot.kind: {operator: value_of(spot.kind, form)}})


def value_of(kind: Kind, form: str) -> str | int:
    """What `Forms` holds for a form."""
    return form if kind == "temporal" else int(form)


class _Window(nn.Module):
    """An operator over a queue of past frames and new ones, as a stream holds them."""

    def __init__(self, operator: nn.Module, added: int) -> None:
        super().__init__()
        self.operator, self._added = operator, added

    def forward(self, new: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, T, H, W) of new and of past frames to the result and the next past."""
        window = torch.cat([past, new], 2)
        return self.operator(window), window[:, :, self._added :]


class _Alone(nn.Module):
    """Operators of a graph, each of which reads the one before and constants."""

    def __init__(self, chain: Sequence[fx.Node], constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._chain = list(chain)
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone())

    def forward(self, value: Tensor) -> Tensor:
        """Run them."""
        for node in self._chain:
            values = {n: getattr(self, _buffer(n), value) for n in node.all_input_nodes}
            arguments, named = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            value = node.target(*arguments, **named)  # type: ignore[operator]
        return value


def _buffer(node: fx.Node) -> str:
    return f"constant_{node.name}"
