from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[2] / "goldens" / "golden.py"


@pytest.fixture(scope="session")
def load_golden() -> Callable[[str], Any]:
    """Reader of `tests/goldens`: `load_golden("movinet/tfm_movinet_a0_base")`."""
    spec = importlib.util.spec_from_file_location("golden", GOLDEN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules["golden"] = module
    spec.loader.exec_module(module)
    return module.load  # type: ignore[no-any-return]
