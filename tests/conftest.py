"""Shared setup: helper modules of this folder are importable; one real build of a tiny stream, converted once per session."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mvtool.build import Build

# pytest's importlib mode puts nothing on the path; `import foreign_models` must work in every test folder.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Three runtimes, fp32 and int8."""
    from tiny_models import SIZE, TinyStream, seeded

    from mvtool.converters.inputs import InputSpec
    from mvtool.converters.pipeline import convert

    folder = tmp_path_factory.mktemp("tiny") / "build"
    spec = InputSpec("frame", (1, 3, 1, SIZE, SIZE))
    return convert(seeded(TinyStream), precisions=("fp32", "int8"), inputs=[spec], out=folder)
