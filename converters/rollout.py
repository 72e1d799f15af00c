"""Stepping the eager module on random inputs: what the captured graph is compared with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mvtool.converters import places
from mvtool.converters.calling import CallPlan, random_tensor
from mvtool.converters.naming import identifier
from mvtool.converters.snapshot import Change, Kind, Snapshot
from mvtool.errors import CaptureError

STEPS = 4
SEED = 20210321
# Identical runs may differ in the last bit where a kernel splits its work differently.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Leaf:
    """One leaf of the module's output.

    Attributes:
        name: `logits`, `state_1`, ... from dict keys, field names and positions; `output` for a bare tensor.
        value: Copy of the tensor, or whatever else stands there.
    """

    name: str
    value: Any


@dataclass(frozen=True)
class Step:
    """One eager step.

    Attributes:
        inputs: Tensor of every input spec, fed-back states included.
        outputs: Leaves of the result.
        buffers: All buffers after the step.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Leaf, ...]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True)
class Rollout:
    """What the eager module did from its initial state.

    Attributes:
        steps: The steps, in order.
        initial: All buffers before the first step.
        changed: Names of buffers that changed in any step, in order of the module.
        settled: Attributes that changed in a warm-up call only, such as caches; with how they changed.
    """

    steps: tuple[Step, ...]
    initial: Mapping[str, Tensor]
    changed: tuple[str, ...]
    settled: tuple[Change, ...]


@dataclass(frozen=True)
class Feedback:
    """A state that the module takes and returns by itself.

    Attributes:
        position: Index of the input spec.
        output: Index of the output leaf.
        initial: Value before the first step.
    """

    position: int
    output: int
    initial: Tensor


def warm_up(module: nn.Module, plan: CallPlan, starts: Mapping[int, Tensor]) -> tuple[Step, tuple[Change, ...]]:
    """Take one step, so that caches which are built by the first call exist.

    Args:
        module: In eval mode.
        plan: How to call it.
        starts: Initial value of explicit states by position of their input spec.

    Returns:
        The step, and attributes other than buffers that it changed. Buffers are back at their initial values.

    Raises:
        CaptureError: The step fails, writes a parameter, or gives a buffer another shape or type.
    """
    before = Snapshot(module)
    step = _step(module, plan, _inputs(plan, 0, torch.Generator().manual_seed(SEED), starts))
    changes = before.changes()
    _judge(module, [change for change in changes if change.kind in (Kind.PARAMETER, Kind.BUFFER)])
    before.restore_buffers()
    return step, tuple(change for change in changes if change.kind is not Kind.BUFFER)


def roll(
    module: nn.Module,
    plan: CallPlan,
    feedback: Sequence[Feedback],
    settled: tuple[Change, ...],
) -> Rollout:
    """Step `module` from its present buffers and watch what it writes.

    Args:
        module: In eval mode, warmed up.
        plan: How to call it.
        feedback: States passed explicitly.
        settled: What the warm-up changed beside buffers.

    Raises:
        CaptureError: A step fails, something other than a buffer keeps changing, or a buffer changes its
            shape.
    """
    generator = torch.Generator().manual_seed(SEED)
    initial = _buffers(module)
    steps: list[Step] = []
    changed: set[str] = set()
    for number in range(STEPS):
        before = Snapshot(module)
        fed = {f.position: steps[-1].outputs[f.output].value if steps else f.initial for f in feedback}
        steps.append(_step(module, plan, _inputs(plan, number, generator, fed)))
        changes = before.changes()
        _judge(module, changes)
        changed |= {change.path for change in changes}
    return Rollout(tuple(steps), initial, tuple(name for name in initial if name in changed), settled)


def _step(module: nn.Module, plan: CallPlan, inputs: tuple[Tensor, ...]) -> Step:
    outputs = call(module, plan, inputs)
    return Step(inputs, outputs, _buffers(module))


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_buffers(remove_duplicate=False)}


def _inputs(
    plan: CallPlan, number: int, generator: torch.Generator, states: Mapping[int, Tensor]
) -> tuple[Tensor, ...]:
    tensors = [random_tensor(spec, number, generator) for spec in plan.specs]
    return tuple(states.get(position, tensor) for position, tensor in enumerate(tensors))


def _judge(module: nn.Module, changes: Sequence[Change]) -> None:
    for change in changes:
        if change.kind is Kind.BUFFER and change.same_form:
            continue
        # Looking for the line of the source takes as long as a step.
        place = f"{change.path!r}{places.of_attribute(module, change.path)}"
        if change.kind is Kind.PARAMETER:
            raise CaptureError(
                f"The forward pass writes the parameter {place} in eval mode; parameters are constants in an artifact. "
                "Keep what changes from frame to frame in a registered buffer."
            )
        if change.kind is Kind.BUFFER:
            raise CaptureError(
                f"The forward pass changes the buffer {place} from {change.before} to {change.after}; a state keeps its "
                "shape and type for ever. Register it with its final shape and initial value, and write it with copy_."
            )
        if change.kind in (Kind.TENSOR, Kind.VALUE):
            how = "with the same shape" if change.before == change.after else f"from {change.before} to {change.after}"
            name = re.split(r"[.\[]", re.sub(r"\[[^.]*$", "", change.path))[-1]
            raise CaptureError(
                f"The forward pass changes the {change.kind.value} {place} at every step ({how}); the graph cannot see it and "
                f"would freeze it. Keep it in a buffer, counters and flags too: self.register_buffer({name!r}, "
                "torch.zeros(...))."
            )


def check_repeatable(module: nn.Module, first: Step, again: Step, settled: tuple[Change, ...]) -> None:
    """Two runs from the same buffers on the same inputs must agree.

    Args:
        module: For the names of its hooks.
        first: The step of `warm_up`.
        again: The first step of `roll`.
        settled: What the warm-up changed beside buffers.

    Raises:
        CaptureError: They do not.
    """
    pairs = [(a.name, a.value, b.value) for a, b in zip(first.outputs, again.outputs, strict=True)]
    pairs += [(name, value, again.buffers[name]) for name, value in first.buffers.items()]
    for name, value, repeated in pairs:
        if isinstance(value, Tensor) and not difference(repeated, value) <= TOLERANCE:
            cause = (
                f"The first call also changed {settled[0].path!r} from {settled[0].before} to {settled[0].after}; "
                "a first step that differs from later ones must be expressed with a buffer."
                if settled
                else "Something random, or state outside of the model's attributes (a global, a closure), is involved."
                + _hooks(module)
            )
            raise CaptureError(
                f"Two runs of the model from the same buffers on the same inputs differ in {name!r} by "
                f"{difference(repeated, value):.3g} of its largest value. {cause}"
            )


def _hooks(module: nn.Module) -> str:
    hooked = [name or "the model" for name, child in module.named_modules() if child._forward_hooks]
    return f" Forward hooks are registered on {', '.join(hooked)}." if hooked else ""


def difference(got: Tensor, reference: Tensor) -> float:
    """Largest |got - reference| divided by the largest |reference|; infinite for another shape, NaN for another NaN.

    Values that are equal, infinities and NaN included, do not differ.
    """
    if got.shape != reference.shape:
        return float("inf")
    a, b = got.to(torch.float64), reference.to(torch.float64)
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    largest = b[b.isfinite()].abs().max().item() if bool(b.isfinite().any()) else 0.0
    distance = (a - b)[~same].abs().max().item()
    return distance / largest if largest else float("inf")


def call(module: nn.Module, plan: CallPlan, tensors: Sequence[Tensor]) -> tuple[Leaf, ...]:
    """Run `forward` once and name the leaves of its result.

    Raises:
        CaptureError: `forward` raised.
    """
    arguments, keywords = plan.arguments([tensor.clone() for tensor in tensors])
    try:
        with torch.no_grad():
            result = module(*arguments, **keywords)
    except Exception as error:
        shapes = ", ".join(f"{p}={list(t.shape)}" for p, t in zip(plan.paths, tensors, strict=True))
        raise CaptureError(
            f"The model fails on inputs {shapes}: {type(error).__name__}: {error}{places.of_error(error, module)}. "
            "Check the shapes given with --input."
        ) from error
    return name_leaves(result)


def name_leaves(result: Any) -> tuple[Leaf, ...]:
    """Flatten a result in the order of torch.export and name its leaves.

    Examples:
        >>> [leaf.name for leaf in name_leaves({"logits": 1, "state": (2, 3)})]
        ['logits', 'state_0', 'state_1']
        >>> [leaf.name for leaf in name_leaves((1, (2, 3)))]
        ['output', 'output_1_0', 'output_1_1']
    """
    leaves = []
    for path, value in pytree.tree_flatten_with_path(result)[0]:
        keys = [_key(entry) for entry in path]
        if not keys or isinstance(keys[0], int):
            keys = ["output", *(keys[1:] if keys[:1] == [0] and len(keys) == 1 else keys)]
        name = "_".join(map(str, keys))
        leaves.append(Leaf(identifier(name), value.detach().clone() if isinstance(value, Tensor) else value))
    return tuple(leaves)


def _key(entry: Any) -> int | str:
    """The position, dict key or field name of a pytree path entry."""
    if isinstance(entry, pytree.SequenceKey):
        return entry.idx
    return str(entry.key if isinstance(entry, pytree.MappingKey) else entry.name)
