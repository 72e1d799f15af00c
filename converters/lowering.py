"""Lower a captured program to what an emitter takes.

A lowered program takes and gives its ports as they are in the artifact: at most four axes, the batch of
one dropped, channels last where the recipe says so. The passes, in order:

    [write out recurrent layers] -> fold batch norm -> [factor hard-swish] -> [factor unit clamp] -> fold scale and shift
    -> [take states apart into slots] -> lower to four axes, with 2D operators -> [pack pixels]

Each runs through `Draft.judge`, which rolls the graph and records the difference to the one before; `exactness` refuses what is not
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mvtool.converters import places
from mvtool.converters.naming import Names
from mvtool.converters.port_types import port_type
from mvtool.converters.recipe import HardSwishForm, Recipe
from mvtool.converters.rewrites import (
    exactness,
    fold_affine,
    fold_batch_norm,
    handlers,
    hard_swish,
    pack_pixels,
    recurrent,
    ring,
)
from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.folded import ORDER, Folded, permute, reshape_folded
from mvtool.converters.rewrites.rank import HighRank, RankLowering
from mvtool.converters.state_forms import Queue
from mvtool.errors import ConversionError, UsageError
from mvtool.ports import StateForm, StateLayout, TensorPort
from mvtool.program import Slots, StateSpec, StreamProgram
from mvtool.slots import whole_port

RANK_NAME = "lower to four axes"
# Parts of the names of 3D operators; no runtime has them.
THREE_D = ("pool3d", "conv3d", "conv_transpose3d", "aten.convolution")


def lower(program: StreamProgram, recipe: Recipe, layout: StateLayout = StateLayout.SHIFT) -> StreamProgram:
    """Lower a captured program.

    Args:
        program: As `capture` returned it.
        recipe: Choices for the target.
        layout: How queues of past frames are held.

    Returns:
        A program whose graph takes port arrays.

    Raises:
        ConversionError: A port cannot have four axes, an operator needs more axes than the target takes, or a
            rewrite changed the results.
        UsageError: The recipe names an operator that the program does not have.
    """
    draft, ports, lowered = _passed(program, recipe, layout)
    reports = exactness.accepted(draft, lambda: _passed(program, recipe, layout, wide=True)[0])
    return ports.apply(program).replace(exported=lowered, rewrites=reports)


def _passed(
    program: StreamProgram, recipe: Recipe, layout: StateLayout, wide: bool = False
) -> tuple[Draft, PortPlan, torch.export.ExportedProgram]:
    draft, queues = before_rank(program, recipe, layout, wide)
    _check_forms(draft, recipe)
    ports = PortPlan(program, recipe, draft.multipliers, queues, wide)
    return draft, ports, _lower_rank(draft, recipe, ports, queues)


def before_rank(
    program: StreamProgram, recipe: Recipe, layout: StateLayout, wide: bool = False
) -> tuple[Draft, dict[int, Queue]]:
    """Run all passes on the model's own axes, up to the last one.

    Args:
        program: As `capture` returned it.
        recipe: Choices for the target.
        layout: How queues of past frames are held.
        wide: In float64, see `Draft`.

    Returns:
        The graph, and the queues that were taken apart by the number of their state.
    """
    draft = Draft(program, wide)
    if recurrent.is_recurrent(draft):
        draft.checked(recurrent.NAME, recurrent.write_out_recurrent)
    draft.checked(fold_batch_norm.NAME, fold_batch_norm.fold_batch_norm)
    if recipe.hard_swish is HardSwishForm.FACTORED:
        draft.checked(hard_swish.HARD_SWISH_NAME, hard_swish.factor_hard_swish)
    if recipe.unit_clamp_as_relu6:
        draft.checked(hard_swish.UNIT_CLAMP_NAME, hard_swish.factor_unit_clamp)
    draft.checked(fold_affine.NAME, fold_affine.fold_affine)
    return draft, ring.take_apart(draft) if layout is StateLayout.RING else {}


def _check_forms(draft: Draft, recipe: Recipe) -> None:
    known = {node.name for node in draft.module.graph.nodes}
    if unknown := sorted(recipe.forms.temporal.keys() - known):
        raise UsageError(
            f"The recipe names {', '.join(unknown)}, which {draft.program.info.name} does not have. Give a recipe of the "
            "same model."
        )


class PortPlan:
    """The ports of a lowered program and the way between them and the graph's values."""

    def __init__(
        self,
        program: StreamProgram,
        recipe: Recipe,
        multipliers: list[float],
        queues: Mapping[int, Queue],
        wide: bool = False,
    ) -> None:
        """Decide every port's form; where the graph is `wide`, it takes float64 for float32."""
        self._wide = wide
        last = recipe.channels_last_ports
        self.inputs = [_typed(port_form(p, p.logical_shape, last, ORDER), recipe) for p in program.inputs]
        self.outputs = [_typed(port_form(p, p.logical_shape, last, ORDER), recipe) for p in program.outputs]
        names = Names({p.name for p in (*program.input_ports, *program.output_ports)})
        states = [_with_slots(state, queues.get(n), names) for n, state in enumerate(program.states)]
        self.computed_types = [self.dtype(p) for p in (*program.inputs, *(p for s in states for p in s.inputs))]
        self.states = [_state_form(s, recipe, factor) for s, factor in zip(states, multipliers, strict=True)]

    def apply(self, program: StreamProgram) -> StreamProgram:
        """`program` with these ports."""
        made = {"inputs": tuple(self.inputs), "outputs": tuple(self.outputs), "states": tuple(self.states)}
        return program.replace(**made).numbered()

    def dtype(self, port: TensorPort) -> torch.dtype:
        """What the graph takes or gives at `port`."""
        dtype: torch.dtype = getattr(torch, port.dtype)
        return torch.float64 if self._wide and dtype is torch.float32 else dtype

    @property
    def arguments(self) -> list[TensorPort]:
        """Input ports in argument order."""
        return [*self.inputs, *(port for state in self.states for port in state.inputs)]

    @property
    def results(self) -> list[TensorPort]:
        """Output ports in result order."""
        return [*self.outputs, *(port for state in self.states for port in state.outputs)]


def _typed(port: Any, recipe: Recipe) -> Any:
    return port.model_copy(update={"dtype": port_type(port, recipe.target)})


def _with_slots(state: StateSpec, queue: Queue | None, names: Names) -> StateSpec:
    """`state` with a port for every entry of its queue, if it is one that was taken apart."""
    if queue is None:
        return state
    shape = tuple(1 if axis == queue.axis else size for axis, size in enumerate(state.logical.shape))

    def entry(port: TensorPort, name: str) -> TensorPort:
        return port.model_copy(update={"name": name, "logical_shape": shape})

    inputs = tuple(entry(state.input, names.unique(f"{state.input.name}_slot{n}")) for n in range(queue.size))
    outputs = tuple(entry(state.output, names.unique(f"{state.output.name}{n}")) for n in range(queue.added))
    if queue.added == 1:
        outputs = (entry(state.output, state.output.name),)
    return replace(state, form=StateForm.RING, slots=Slots(queue.axis, inputs, outputs))


def _state_form(state: StateSpec, recipe: Recipe, multiplier: float) -> StateSpec:
    """Without channels last, a window of frames is (C, T, H, W): stacking its frames as channels is then free."""
    window = len(state.logical.shape) == 5 and state.logical.shape[2] > 1
    order = (1, 2, 3, 4) if window else ORDER

    def formed(port: TensorPort) -> TensorPort:
        port = port_form(port, port.logical_shape, recipe.channels_last_ports, order, multiplier)
        return _typed(port, recipe)  # type: ignore[no-any-return]

    made = state.with_ports(formed)
    if made.slots is None:
        return made
    names, slots = (state.input.name, state.output.name), made.slots
    before, after = (whole_port(name, slots.inputs, slots.axis) for name in names)
    return replace(made, input=before, output=after)


def port_form(port: Any, shape: tuple[int, ...], last: bool, order: tuple[int, ...], multiplier: float = 1.0) -> Any:
    """`port` in the form that the artifact has.

    Args:
        port: A port of the captured program.
        shape: Logical shape.
        last: Channels last.
        order: Axis order of a 5D tensor when channels are not last.
        multiplier: Factor between the logical value and the port's.

    Raises:
        ConversionError: More than four axes would be left.
    """
    layout = getattr(port, "logical_layout", None)
    if len(shape) == 5 and shape[0] == 1:
        axes = (2, 3, 4, 1) if last else order
        return _with(port, (0, *axes), tuple(shape[a] for a in axes), _letters(layout, axes, shape), multiplier)
    if len(shape) == 4 and last:
        axes = (0, 2, 3, 1)
        return _with(port, axes, tuple(shape[a] for a in axes), _letters(layout, axes, shape), multiplier)
    if len(shape) <= 4:
        return _with(port, tuple(range(len(shape))), shape or (1,), layout, multiplier)
    short = [size for size in shape if size != 1]
    if len(short) > 4:
        raise ConversionError(
            f"The port {port.name!r} has shape {shape}; more than four axes are left when those of size 1 are "
            "dropped, and phone runtimes take four. Capture with a batch of one, or split the tensor."
        )
    return _with(port, tuple(range(len(shape))), tuple(short) or (1,), None, multiplier)


def _with(port: Any, permutation: tuple[int, ...], shape: tuple[int, ...], layout: str | None, factor: float) -> Any:
    return port.model_copy(update={"permutation": permutation, "shape": shape, "layout": layout, "multiplier": factor})


def _letters(layout: str | None, axes: tuple[int, ...], shape: tuple[int, ...]) -> str | None:
    """Letters of the kept axes; a single frame's time axis reads as the batch that runtimes expect."""
    if layout is None:
        return None
    letters = "".join(layout[a] for a in axes)
    single_frame = len(layout) == 5 and shape[layout.index("T")] == 1
    return letters.replace("T", "N") if single_frame else letters


class Lowered(nn.Module):
    """Port arrays -> values of `RankLowering` -> port arrays."""

    def __init__(self, body: RankLowering, ports: PortPlan) -> None:
        """Wrap `body`."""
        super().__init__()
        self.body = body
        self._ports = ports

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        inside = [_cast(v, dtype) for v, dtype in zip(values, self._ports.computed_types, strict=True)]
        arguments = [_enter(v, p) for v, p in zip(inside, self._ports.arguments, strict=True)]
        results = self.body(*arguments)
        return tuple(
            _cast(_leave(r, p), self._ports.dtype(p)) for r, p in zip(results, self._ports.results, strict=True)
        )


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value if value.dtype == dtype else value.to(dtype)


def _enter(value: Tensor, port: TensorPort) -> Tensor | Folded:
    logical = port.logical_shape
    if len(logical) == 5 and logical[0] == 1:
        order = tuple(port.permutation[1:])
        as_stored = Folded(value, order)  # type: ignore[arg-type]
        return Folded(as_stored.canonical()) if order[-1] == 1 else as_stored
    if len(logical) == 4 and port.permutation == (0, 2, 3, 1):
        return permute(value, (0, 3, 1, 2))
    return reshape_folded(value, logical)


def _leave(value: Tensor | Folded, port: TensorPort) -> Tensor:
    if isinstance(value, Folded):
        if port.permutation[0] == 0 and len(port.shape) == 4:
            return value.as_order(tuple(port.permutation[1:]))  # type: ignore[arg-type]
        return value.ascending().reshape(port.shape)
    return permute(value, port.permutation).reshape(port.shape)


def _lower_rank(
    draft: Draft, recipe: Recipe, ports: PortPlan, queues: Mapping[int, Queue]
) -> torch.export.ExportedProgram:
    changes = Changes()
    handlers.load()
    body = RankLowering(draft.module, recipe, changes)
    module = Lowered(body, ports)
    arguments = tuple(torch.zeros(p.shape, dtype=ports.dtype(p)) for p in ports.arguments)
    try:
        with torch.no_grad():
            module(*arguments)
        _refuse_high_rank(body.high, recipe)
        body.first_run = False
        exported = torch.export.export(module, arguments, strict=False)
    except ValueError as error:
        raise ConversionError(f"{draft.program.info.name} cannot be lowered to four axes: {error}.") from error
    exported.graph.eliminate_dead_code()
    _report(draft, RANK_NAME, changes, exported, ports, queues)
    if recipe.forms.pixels:
        packed = Changes()
        pack_pixels.pack_pixels(exported, recipe.forms.pixels, packed)
        _report(draft, pack_pixels.NAME, packed, exported, ports, queues)
    return exported


def _report(
    draft: Draft,
    name: str,
    changes: Changes,
    exported: torch.export.ExportedProgram,
    ports: PortPlan,
    queues: Mapping[int, Queue],
) -> None:
    """Append the report of a pass whose result takes and gives port arrays."""
    through = _ThroughPorts(exported.module(check_guards=False), ports)
    draft.judge(name, changes, ring.Whole(draft, through, queues))


def _refuse_high_rank(found: list[HighRank], recipe: Recipe) -> None:
    """Refuse what no emitter could write; the rest keeps its axes and stands in the report."""
    for high in found:
        axes, target = len(high.shape), recipe.target.value
        what = f"The operator {high.node.target} {places.of_node(high.node)} works on {axes} axes, shape {high.shape}"
        if axes > recipe.most_axes:
            raise ConversionError(
                f"{what}; the target {target!r} takes at most {recipe.most_axes}. Reshape to fewer axes "
                "before it, for example by merging neighbouring axes that stay together, or convert without the "
                f"target {target!r}."
            )
        if any(name in str(high.node.target) for name in THREE_D):
            raise ConversionError(
                f"{what}, and has no exact form with four; the target {target!r} has no 3D operators. Write it with 2D "
                "operators on the frames."
            )


class _ThroughPorts(nn.Module):
    """A lowered graph called with logical tensors, so that it can be compared with the captured one."""

    def __init__(self, graph: nn.Module, ports: PortPlan) -> None:
        super().__init__()
        self.graph = graph
        self._ports = ports

    def forward(self, *values: Tensor) -> list[Tensor]:
        arguments = [
            _cast(v.permute(p.permutation).reshape(p.shape), self._ports.dtype(p))
            for v, p in zip(values, self._ports.arguments, strict=True)
        ]
        results = self.graph(*arguments)
        return [_logical(r, p) for r, p in zip(results, self._ports.results, strict=True)]


def _logical(value: Tensor, port: TensorPort) -> Tensor:
    inverse = [port.permutation.index(axis) for axis in range(len(port.permutation))]
    return value.reshape([port.logical_shape[axis] for axis in port.permutation]).permute(inverse)
