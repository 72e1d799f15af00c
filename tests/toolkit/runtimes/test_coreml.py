"""Core ML sessions: what `predict` is given, and that reading a package leaves the converter alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mvtool.build import Build
from mvtool.ports import Precision, Runtime
from mvtool.runtimes.coreml import _fed
from mvtool.runtimes.mlprogram.dtypes import DType, TensorType
from mvtool.runtimes.mlprogram.program import ColorLayout, ImageFeature, TensorFeature

PIXELS = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(1, 3, 2, 4)


@pytest.mark.parametrize(("layout", "order"), [(ColorLayout.RGB, [0, 1, 2]), (ColorLayout.BGR, [2, 1, 0])])
def test_an_image_port_gets_an_rgb_picture(layout: ColorLayout, order: list[int]) -> None:
    feature = ImageFeature("frame", layout, 2, 4, TensorType(DType.FP32, (1, 3, 2, 4)))
    picture = _fed(feature, PIXELS.reshape(3, 2, 4))
    assert (picture.mode, picture.size) == ("RGB", (4, 2))
    np.testing.assert_array_equal(np.asarray(picture), PIXELS[0, order].transpose(1, 2, 0))


def test_another_port_gets_an_array_of_its_shape() -> None:
    feature = TensorFeature("state", TensorType(DType.FP16, (1, 4)))
    assert _fed(feature, np.zeros(4, np.float16)).shape == (1, 4)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself needs all of coremltools")
def test_opening_a_package_does_not_import_the_converter(tiny_build: Build) -> None:
    path = tiny_build.path(tiny_build.artifact(Runtime.COREML, Precision.FP32))
    code = (
        "import sys; from mvtool.runtimes import open_artifact; open_artifact(sys.argv[1]);"
        "assert 'coremltools' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
