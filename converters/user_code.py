"""Building a model from the user's own Python code."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

from mvtool.errors import MvtoolError, SourceError
from mvtool.extras import require

if TYPE_CHECKING:
    from torch import nn


def is_module(value: object) -> TypeGuard[nn.Module]:
    """Whether `value` is a `torch.nn.Module`."""
    return isinstance(value, require("torch", "to load a model").nn.Module)


def build_from_code(spec: str, arguments: Mapping[str, object]) -> nn.Module:
    """Import `package.module:factory` as Python would from the current directory, and call it.

    The current directory is put first on `sys.path` and stays there, since models import lazily. The
    attribute may be dotted, and may be a module object instead of a callable.

    Raises:
        SourceError: The text has another form, the import or the call raises, the attribute is missing,
            or what comes out is no `torch.nn.Module`.
    """
    path, _, attribute = spec.partition(":")
    if path.endswith(".py") or not all(part.isidentifier() for part in [*path.split("."), *attribute.split(".")]):
        hint = f" Write {path.removesuffix('.py').replace('/', '.')}:{attribute} instead." if ".py" in path else ""
        raise SourceError(f"The model {spec!r} cannot be read; expected package.module:factory.{hint}")
    found: Any = _import(path)
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=5, cutoff=0.3)
            raise SourceError(
                f"{path} has no attribute {attribute!r}. "
                + (f"Closest names: {', '.join(close)}." if close else "Check the name behind the colon.")
            )
        found = getattr(found, part)
    built = found if is_module(found) else _call(spec, found, arguments)
    if not is_module(built):
        raise SourceError(f"{spec} gave a {type(built).__name__}; expected a torch.nn.Module.")
    if built is found and arguments:
        raise SourceError(
            f"{spec} is a module object and takes no arguments, got {', '.join(arguments)}; name a factory."
        )
    return built


def _import(path: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(f"{error.name}.")):
            raise SourceError(
                f"Importing {path} fails: it imports {error.name!r}, which is not installed{_place(error)}."
            ) from error
        raise SourceError(
            f"The Python module {path!r} is not found: there is no {error.name!r} in {folder} nor among the installed "
            "packages. Start mvtool in the folder from which `import` works."
        ) from error
    except MvtoolError:
        raise
    except Exception as error:
        raise SourceError(f"Importing {path} fails: {type(error).__name__}: {error}{_place(error)}.") from error


def _call(spec: str, factory: Any, arguments: Mapping[str, object]) -> Any:
    if not callable(factory):
        raise SourceError(f"{spec} is a {type(factory).__name__}; expected a function, a class or a torch.nn.Module.")
    try:
        # Some builtins have no signature; the call itself will tell.
        with suppress(ValueError):
            inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise SourceError(
            f"{spec} cannot be called with the arguments ({', '.join(arguments) or 'none'}): {error}. "
            "Factory arguments are given as JSON, in Python as a mapping."
        ) from error
    try:
        return factory(**arguments)
    except Exception as error:
        raise SourceError(f"{spec} raised {type(error).__name__}: {error}{_place(error)}.") from error


def _place(error: BaseException) -> str:
    """File and line where user code raised, outside of this file and the import machinery."""
    from mvtool.converters.places import innermost

    return innermost(error)
