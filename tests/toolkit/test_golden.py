"""The golden file: what an app's unit test reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from manifests import ToyExecutable, toy_session

from mvtool.build import Build
from mvtool.errors import ManifestError
from mvtool.golden import GOLDEN_FRAMES, int8_tolerance, make_golden, read_golden, tolerances, write_golden
from mvtool.ports import Precision
from mvtool.verification.frames import picture


def test_golden_replays_exactly_on_the_session_that_made_it(tmp_path: Path) -> None:
    session = toy_session()
    golden = make_golden(session)
    write_golden(golden, tmp_path / "golden.npz")
    again = read_golden(tmp_path / "golden.npz")
    assert again.frames == GOLDEN_FRAMES
    session.reset()
    errors = [again.error(session.step(*again.step(session.manifest, i)), i) for i in range(again.frames)]
    assert errors == [0.0] * GOLDEN_FRAMES


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_golden(make_golden(toy_session()), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_error_is_relative_to_the_largest_expected_value() -> None:
    golden = make_golden(toy_session())
    expected = golden.outputs["y"][2]
    off = expected.copy()
    off[0] += np.float32(0.5)
    assert golden.error({"y": off}, 2) == pytest.approx(0.5 / np.abs(expected).max(), rel=1e-5)


def test_int8_tolerance_is_twice_the_simulated_error_and_not_tiny() -> None:
    golden = make_golden(toy_session())
    assert int8_tolerance(golden, toy_session()) == 0.02
    rough = toy_session(ToyExecutable(lambda r: [r[0] * np.float32(1.1), *r[1:]]))
    assert int8_tolerance(golden, rough) == pytest.approx(0.2, rel=1e-3)
    assert set(tolerances({})) == {Precision.FP32, Precision.FP16}
    assert tolerances({Precision.INT8: 0.3})[Precision.INT8] == 0.3


def test_a_damaged_golden_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with pytest.raises(ManifestError, match="cannot be read"):
        read_golden(path)
    write_golden(make_golden(toy_session()), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ManifestError, match="cannot be read"):
        read_golden(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ManifestError, match="not a golden file"):
        read_golden(path)


def test_a_build_holds_camera_bytes(tiny_build: Build) -> None:
    golden = read_golden(tiny_build.path(tiny_build.manifest.golden))
    stored = golden.inputs["frame"]
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored[3, 0], picture(3, 16, 16))
