"""Shared setup: helper modules of this folder are importable, and torch leaves the other cores alone."""

from __future__ import annotations

import sys
from pathlib import Path

# pytest's importlib mode puts nothing on the path; `import foreign_models` must work in every test folder.
sys.path.insert(0, str(Path(__file__).parent))
