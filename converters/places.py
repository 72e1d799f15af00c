"""Where in the user's code something happened: module path, file and line."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.fx import Node

_TORCH = str(Path(torch.__file__).parent)
_LIBRARY = str(Path(traceback.__file__).parent)
_HERE = str(Path(__file__).parent)


def of_error(error: BaseException, module: nn.Module) -> str:
    """Place of an exception, ` in submodule 'head' (net.py:12, in forward)`; empty if unknown."""
    frames = [frame for frame, _ in traceback.walk_tb(_deepest(error)) if _is_user(frame.f_code.co_filename)]
    lines = [line for frame, line in traceback.walk_tb(_deepest(error)) if _is_user(frame.f_code.co_filename)]
    if not frames:
        return ""
    names = {id(child): name for name, child in module.named_modules()}
    owner = next((names[id(f.f_locals["self"])] for f in reversed(frames) if id(f.f_locals.get("self")) in names), "")
    code = frames[-1].f_code
    return f" {_submodule(owner)} ({code.co_filename}:{lines[-1]}, in {code.co_name})"


def innermost(error: BaseException) -> str:
    """The last line outside of torch, mvtool's converters and Python itself, ` (net.py:12, in make)`; may be empty."""
    frames = [(f.f_code, line) for f, line in traceback.walk_tb(error.__traceback__) if _is_user(f.f_code.co_filename)]
    frames = [(code, line) for code, line in frames if not code.co_filename.startswith(_LIBRARY)]
    return f" ({frames[-1][0].co_filename}:{frames[-1][1]}, in {frames[-1][0].co_name})" if frames else ""


def of_node(node: Node) -> str:
    """Place of a graph node, from what torch.export recorded."""
    owner = layer_of_node(node)
    found = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', node.meta.get("stack_trace") or "")
    users = [entry for entry in found if _is_user(entry[0])] or found
    place = _submodule(owner)
    return f"{place} ({users[-1][0]}:{users[-1][1]}, in {users[-1][2]})" if users else place


def layer_of_node(node: Node) -> str:
    """Path of the module that a graph node is in, from what torch.export recorded; empty if unknown."""
    stack: dict[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""


def of_attribute(module: nn.Module, path: str) -> str:
    """File and line where some class of the model writes the attribute `path`; empty if not found."""
    owner, attribute = _owner(module, path)
    candidates = [("self", type(owner)), *((r"[\w\]\)]", type(child)) for child in module.modules())]
    for holder, kind in dict.fromkeys(candidates):
        place = _write_in(kind, holder, attribute)
        if place:
            return f" ({place})"
    return ""


def _write_in(kind: type, holder: str, attribute: str) -> str:
    if not _is_user(getattr(sys.modules.get(kind.__module__), "__file__", None) or _TORCH):
        return ""
    try:
        lines, start = inspect.getsourcelines(kind)
        file = inspect.getsourcefile(kind)
    except (OSError, TypeError):
        return ""
    chain = r"(\.\w+(\(\))?|\[[^\]]*\])*"
    write = r"(\s*(,[^=]*)?[-+*/|&@]?=(?!=)|\.\w+_\(|\.(append|extend|insert|pop|update|clear)\()"
    pattern = re.compile(rf"{holder}\.{re.escape(attribute)}\b{chain}?{write}")
    hits = [start + i for i, line in enumerate(lines) if pattern.search(line) and not _in_init(lines, i)]
    return f"{file}:{hits[0]}" if hits else ""


def _in_init(lines: list[str], index: int) -> bool:
    for line in reversed(lines[: index + 1]):
        found = re.match(r"\s*(?:async )?def (\w+)", line)
        if found:
            return found[1] == "__init__"
    return True


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    owner: nn.Module = module
    parts = re.split(r"[.\[]", path)
    for part in parts:
        child = owner._modules.get(part)
        if child is None:
            return owner, part
        owner = child
    return owner, parts[-1]


def _submodule(owner: str) -> str:
    return f"in submodule {owner!r}" if owner else "at the top level"


def _is_user(file: str) -> bool:
    return not file.startswith((_TORCH, _HERE, "<"))


def _deepest(error: BaseException) -> TracebackType | None:
    return error.__traceback__
