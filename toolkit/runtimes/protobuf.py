"""The protobuf classes of coremltools without the rest of it.

`import coremltools` 9.0 imports its converter and every framework that it finds installed: 13 seconds of
processor time where TensorFlow is one of them. Reading a model takes the generated classes alone, which
import nothing but protobuf.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "coremltools"
_kept: dict[str, types.ModuleType] = {}


@contextmanager
def generated_classes_alone() -> Iterator[None]:
    """Let `import coremltools.proto...` in this block skip `coremltools/__init__.py`.

    The bare package is gone from `sys.modules` after the block, so that a later `import coremltools` gives
    the whole one. Nothing changes where coremltools is loaded already or not installed.
    """
    specification = importlib.util.find_spec(_PACKAGE) if _PACKAGE not in sys.modules else None
    if specification is None:
        yield
        return
    bare = types.ModuleType(_PACKAGE)
    bare.__path__ = list(specification.submodule_search_locations or ())
    sys.modules.update({_PACKAGE: bare, **_kept})
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            _kept[name] = sys.modules.pop(name)
