"""How tensors reach the arguments of `forward`, in examples and in every step of a check."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvtool.converters.inputs import InputSpec
from mvtool.errors import CaptureError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Steps differ in size, so that a tensor which is frozen into the graph cannot hide behind a repeated input.
STEP_GAINS = (1.0, 0.25, 2.0, 0.5)


@dataclass(frozen=True)
class CallPlan:
    """How `forward` is called.

    Attributes:
        specs: Tensor inputs.
        paths: For each of them its place in the call, for example `x` or `state.0`.
        positional: Arguments passed by position, in order.
        keywords: Arguments passed by keyword, in order.
        variadic: Name of the `*args` parameter, where tensors go into it.
        constants: Values of arguments that are not tensors.
    """

    specs: tuple[InputSpec, ...]
    paths: tuple[str, ...]
    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    variadic: str | None
    constants: Mapping[str, object]

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Build the call from one tensor per spec."""
        values: dict[str, Any] = {**self.constants, **_nest(dict(zip(self.paths, tensors, strict=True)))}
        positional = tuple(values[name] for name in self.positional)
        if self.variadic is not None:
            positional += values[self.variadic]
        return positional, {name: values[name] for name in self.keywords}


def plan_call(module: nn.Module, specs: Sequence[InputSpec], constants: Mapping[str, object]) -> CallPlan:
    """Find a place in `module.forward` for every spec and constant.

    Raises:
        CaptureError: A name is not an argument, an argument is given twice, there are more inputs
            than arguments, or an argument without default is missing.
    """
    parameters = inspect.signature(module.forward).parameters
    paths = _bind(type(module).__name__, parameters, specs, constants)
    given = {path.partition(".")[0] for path in paths} | set(constants)
    by_keyword = {path.partition(".")[0] for path, spec in zip(paths, specs, strict=True) if spec.as_kwarg}
    positional: list[str] = []
    keywords: list[str] = []
    variadic = None
    skipped = False
    for name, parameter in parameters.items():
        if name not in given or parameter.kind is parameter.VAR_KEYWORD:
            skipped = True
        elif parameter.kind is parameter.VAR_POSITIONAL:
            variadic = name
        elif parameter.kind is parameter.KEYWORD_ONLY or skipped or name in by_keyword:
            keywords.append(name)
            skipped = True
        else:
            positional.append(name)
    keywords += [
        name for name in dict.fromkeys((*(p.partition(".")[0] for p in paths), *constants)) if name not in parameters
    ]
    return CallPlan(tuple(specs), tuple(paths), tuple(positional), tuple(keywords), variadic, dict(constants))


def _bind(
    owner: str,
    parameters: Mapping[str, inspect.Parameter],
    specs: Sequence[InputSpec],
    constants: Mapping[str, object],
) -> list[str]:
    kinds = inspect.Parameter
    open_ended = any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters.values())
    listing = ", ".join(parameters) or "none"
    named = {spec.name.partition(".")[0] for spec in specs if spec.name is not None} | set(constants)
    for name in named:
        if name not in parameters and not open_ended:
            raise CaptureError(f"{owner}.forward has no argument {name!r}; its arguments are: {listing}.")
    variadic = next((n for n, p in parameters.items() if p.kind is kinds.VAR_POSITIONAL), None)
    closed = [
        n for n, p in parameters.items() if n not in named and p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
    ]
    free = [n for n in closed if variadic is None or parameters[n].kind is not kinds.KEYWORD_ONLY]
    paths: list[str] = []
    extra = 0
    for spec in specs:
        if spec.name is not None:
            paths.append(spec.name)
        elif free:
            paths.append(free.pop(0))
        elif variadic is not None:
            paths.append(f"{variadic}.{extra}")
            extra += 1
        else:
            raise CaptureError(f"{owner}.forward got more inputs ({len(specs)}) than it has arguments: {listing}.")
    if len(set(paths)) != len(paths) or named & {path.partition(".")[0] for path in paths} & set(constants):
        raise CaptureError(f"{owner}.forward got an argument twice: {', '.join([*paths, *constants])}.")
    missing = [n for n in closed if n not in paths and parameters[n].default is kinds.empty]
    if missing:
        raise CaptureError(
            f"{owner}.forward needs the argument {missing[0]!r}, which was not given; "
            f"name it with --input {missing[0]}=1x32, in Python InputSpec({missing[0]!r}, (1, 32)), "
            f"or pass a constant if it is no tensor: --forward-kwargs '{{\"{missing[0]}\": true}}'."
        )
    return paths


def _nest(leaves: Mapping[str, Tensor]) -> dict[str, Any]:
    """Turn dotted paths into nested dicts and, where all keys of a level are numbers, tuples."""
    tree: dict[str, Any] = {}
    for path, tensor in leaves.items():
        *parents, last = path.split(".")
        level = tree
        for key in parents:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise CaptureError(f"The input {path!r} lies inside another input; give either the whole or its parts.")
        level[last] = tensor
    return {name: _freeze(value) for name, value in tree.items()}


def _freeze(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    children = {key: _freeze(child) for key, child in value.items()}
    if all(key.isdigit() for key in children):
        if sorted(map(int, children)) != list(range(len(children))):
            raise CaptureError(
                f"The parts {', '.join(children)} of a tuple argument must be numbered from 0 without gaps."
            )
        return tuple(children[key] for key in sorted(children, key=int))
    return children


def random_tensor(spec: InputSpec, step: int, generator: torch.Generator) -> Tensor:
    """A step's input: images uniform in [0, 1), other reals normal, integers and booleans 0 or 1."""
    import torch

    dtype: torch.dtype = getattr(torch, spec.dtype)
    if not dtype.is_floating_point:
        return torch.randint(0, 2, spec.shape, generator=generator).to(dtype)
    if spec.is_image:
        return torch.rand(spec.shape, generator=generator).to(dtype)
    gain = STEP_GAINS[step % len(STEP_GAINS)]
    return (torch.randn(spec.shape, generator=generator) * gain).to(dtype)
