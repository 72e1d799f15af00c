"""Everything a module can reach, before and after a step: what changed, and how to put it back.

torch.export sees buffers. State may also hide in plain tensor attributes, Python numbers, lists, dicts or
helper objects, where an exported graph would freeze it without a word. So the eager module is stepped and
all of it is compared.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_REGISTRIES = ("_parameters", "_buffers", "_modules")
# What every nn.Module carries (hooks, flags) is machinery, not state.
_MACHINERY = frozenset(vars(nn.Module()))
_SCALARS = (bool, int, float, complex, str, bytes, type(None), Enum, torch.dtype, torch.device, range, slice)
_OPAQUE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, torch.Generator)


class Kind(Enum):
    """What a reachable value is."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    TENSOR = "plain tensor attribute"
    VALUE = "Python attribute"


@dataclass(frozen=True)
class Change:
    """A difference between two moments.

    Attributes:
        path: Dotted place in the module, for example `blocks.0.cache[1]`.
        kind: What it is.
        before: Short description of the old value.
        after: Short description of the new value.
        same_form: Shape and type stayed the same, only values changed.
    """

    path: str
    kind: Kind
    before: str
    after: str
    same_form: bool


class Snapshot:
    """All tensors, arrays and plain values that the attributes of a module lead to, at one moment."""

    def __init__(self, module: nn.Module) -> None:
        """Copy everything; parameters too, since a forward pass may write them."""
        self._module = module
        self._leaves: dict[str, tuple[Kind, Any, Any]] = {}
        self._containers: list[tuple[Any, Any]] = []
        for path, kind, value in _walk(module, "", Kind.VALUE, set(), self._containers):
            self._leaves[path] = (kind, value, _copy(value))

    def changes(self) -> list[Change]:
        """What differs between the snapshot and the module now, in order of the module."""
        now = {path: (kind, value) for path, kind, value in _walk(self._module, "", Kind.VALUE, set(), [])}
        found = []
        for path in dict.fromkeys((*self._leaves, *now)):
            kind, value = now.get(path, (None, _ABSENT))
            old_kind, _, old = self._leaves.get(path, (None, None, _ABSENT))
            if not _same(old, value):
                known = old_kind if old_kind is not None and old is not None else kind or old_kind
                assert known is not None
                found.append(Change(path, known, _describe(old), _describe(value), _form(old) == _form(value)))
        return found

    def restore(self) -> None:
        """Put every container, tensor and array back, training flags of modules included."""
        for container, copy in self._containers:
            _refill(container, copy)
        with torch.no_grad():
            for _, value, copy in self._leaves.values():
                if isinstance(value, Tensor) and not _same(value, copy[0]):
                    value.data = copy[1]
                    value.data.copy_(copy[0])
                elif isinstance(value, np.ndarray) and not _same(value, copy):
                    value[...] = copy

    def restore_buffers(self) -> None:
        """Put the buffers of all submodules back and leave every other attribute as it is now."""
        with torch.no_grad():
            for child in self._module.modules():
                for container, copy in self._containers:
                    if container is child._buffers:
                        _refill(container, copy)
            for kind, value, copy in self._leaves.values():
                if kind is Kind.BUFFER and isinstance(value, Tensor) and not _same(value, copy[0]):
                    value.data = copy[1]
                    value.data.copy_(copy[0])


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _walk(value: Any, path: str, kind: Kind, seen: set[int], containers: list[tuple[Any, Any]]) -> Iterator[Any]:
    if isinstance(value, Tensor):
        yield path, Kind.TENSOR if kind is Kind.VALUE else kind, value
        return
    if isinstance(value, (*_SCALARS, np.ndarray, np.generic)):
        yield path, kind, value
        return
    if isinstance(value, _OPAQUE) or id(value) in seen:
        return
    seen.add(id(value))
    for name, child, child_kind in _children(value, path, containers):
        yield from _walk(child, name, child_kind, seen, containers)


def _children(value: Any, path: str, containers: list[tuple[Any, Any]]) -> Iterator[tuple[str, Any, Kind]]:
    dot = f"{path}." if path else ""
    if isinstance(value, nn.Module):
        attributes = vars(value)
        containers.append((attributes, dict(attributes)))
        for registry, kind in zip(_REGISTRIES, (Kind.PARAMETER, Kind.BUFFER, Kind.VALUE), strict=True):
            containers.append((attributes[registry], dict(attributes[registry])))
            yield from [(dot + name, child, kind) for name, child in attributes[registry].items()]
        yield from [(dot + n, c, Kind.VALUE) for n, c in list(attributes.items()) if n not in _MACHINERY]
    elif isinstance(value, dict):
        containers.append((value, dict(value)))
        yield from [(f"{path}[{key!r}]", child, Kind.VALUE) for key, child in list(value.items())]
    elif isinstance(value, list | deque | tuple):
        if not isinstance(value, tuple):
            containers.append((value, list(value)))
        yield from [(f"{path}[{index}]", child, Kind.VALUE) for index, child in enumerate(list(value))]
    elif isinstance(value, set):
        containers.append((value, set(value)))
        yield f"{path}.<elements>", repr(sorted(map(repr, value))), Kind.VALUE
    elif isinstance(getattr(value, "__dict__", None), dict):
        containers.append((vars(value), dict(vars(value))))
        yield from [(dot + name, child, Kind.VALUE) for name, child in list(vars(value).items())]


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        # The second entry keeps the storage, in case the attribute `.data` is exchanged.
        return value.detach().clone(), value.detach()
    return value.copy() if isinstance(value, np.ndarray) else value


def _refill(container: Any, copy: Any) -> None:
    if isinstance(container, dict):
        if list(container) != list(copy) or any(container[key] is not copy[key] for key in copy):
            container.clear()
            container.update(copy)
    elif isinstance(container, set):
        container.clear()
        container.update(copy)
    elif len(container) != len(copy) or any(a is not b for a, b in zip(container, copy, strict=True)):
        container.clear()
        container.extend(copy)


def _same(old: Any, new: Any) -> bool:
    old = old[0] if isinstance(old, tuple) else old
    if _form(old) != _form(new):
        return False
    if isinstance(new, Tensor):
        if new.is_floating_point() or new.is_complex():
            return torch.allclose(old, new, rtol=0.0, atol=0.0, equal_nan=True)
        return torch.equal(old, new)
    if isinstance(new, np.ndarray):
        return np.array_equal(old, new, equal_nan=new.dtype.kind in "fc")
    # repr tells NaN from numbers; NaN itself equals nothing.
    return bool(old == new) or repr(old) == repr(new) == "nan"


def _form(value: Any) -> object:
    value = value[0] if isinstance(value, tuple) else value
    if isinstance(value, Tensor | np.ndarray):
        return (tuple(value.shape), str(value.dtype))
    return type(value)


def _describe(value: Any) -> str:
    value = value[0] if isinstance(value, tuple) else value
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
