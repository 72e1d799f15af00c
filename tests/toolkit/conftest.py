"""One real build of a tiny stream, converted once per session; one thread for tiny tensors."""

from __future__ import annotations

import os

import pytest

from mvtool.build import Build

# Waiting threads cost tiny models eight times the work on a busy machine. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Three runtimes, fp32 and int8."""
    from tiny_models import SIZE, TinyStream, seeded

    from mvtool.converters.inputs import InputSpec
    from mvtool.converters.pipeline import convert

    folder = tmp_path_factory.mktemp("tiny") / "build"
    spec = InputSpec("frame", (1, 3, 1, SIZE, SIZE))
    return convert(seeded(TinyStream), precisions=("fp32", "int8"), inputs=[spec], out=folder)
