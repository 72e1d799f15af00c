"""A converted stream and labelled clips for it."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from motion_model import MODEL

import mvtool
from mvtool.build import Build
from mvtool.converters.inputs import parse_input

CLIPS = 9


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A TFLite stream in fp32 and int8 of 4 classes, 32x32."""
    place = tmp_path_factory.mktemp("evaluated")
    (place / "evaluated_motion.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        model = importlib.import_module("evaluated_motion").make()
    return mvtool.convert(
        model,
        inputs=[parse_input("frame=1x3x32x32")],
        targets=["tflite"],
        precisions=["fp32", "int8"],
        out=place / "motion",
    )


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Nine clips of 3 to 7 frames with class numbers."""
    place = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    rows = ["path,label"]
    for index in range(CLIPS):
        np.save(place / f"{index}.npy", generator.integers(0, 256, (3 + index % 5, 40, 48, 3), dtype=np.uint8))
        rows.append(f"{index}.npy,{index % 4}")
    (place / "list.csv").write_text("\n".join(rows))
    return str(place / "list.csv")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where an evaluation is kept."""
    return tmp_path / "evaluation"
