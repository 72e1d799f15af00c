"""Convert, quantize, verify and run PyTorch video models for phones.

    import mvtool

    build = mvtool.convert("movinet_a0_stream", weights="a0.pth", precisions=("fp32", "int8"))
    session = mvtool.open("build/movinet_a0_stream")       # reset, step, state
    verification = mvtool.verify("build/movinet_a0_stream")

The command line calls these three functions and nothing else. They are imported when first used, so
that `import mvtool` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvtool.converters.pipeline import convert
    from mvtool.runtimes import open_artifact as open
    from mvtool.verification.verify import verify

__version__ = "0.1.0"
__all__ = ["__version__", "convert", "open", "verify"]

_HOMES = {
    "convert": ("mvtool.converters.pipeline", "convert"),
    "open": ("mvtool.runtimes", "open_artifact"),
    "verify": ("mvtool.verification.verify", "verify"),
}


def __getattr__(name: str) -> object:
    """Import a public function when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mvtool' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
