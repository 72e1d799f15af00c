"""Convert, quantize, verify and run PyTorch video models for phones.

    mvtool.convert(model_or_name, ...) -> Build
    mvtool.open(path) -> Session
    mvtool.verify(path) -> Verification

Importing the package imports none of them; each is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvtool.converters.pipeline import convert
    from mvtool.runtimes import open_artifact as open
    from mvtool.verification.verify import verify

__all__ = ["__version__", "convert", "open", "verify"]
__version__ = "0.1.0"

_HOMES = {
    "convert": ("mvtool.converters.pipeline", "convert"),
    "open": ("mvtool.runtimes", "open_artifact"),
    "verify": ("mvtool.verification.verify", "verify"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'mvtool' has no attribute {name!r}")
    module, function = _HOMES[name]
    return getattr(importlib.import_module(module), function)
