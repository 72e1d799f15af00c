from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvtool import demo_clip, video


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_the_bundled_file_is_what_the_module_draws() -> None:
    """Compression costs something; another drawing, scene or order would cost far more."""
    frames = list(video.frames(demo_clip.path()))
    assert len(frames) == demo_clip.FRAMES
    assert min(psnr_db(frame.image, demo_clip.draw(frame.index)) for frame in frames[3::10]) > 28


def test_enough_frames_differ_also_at_a_models_rate() -> None:
    for rate, least in ((None, 250), (5.0, 50)):
        assert len({f.image.tobytes() for f in video.frames(demo_clip.path(), frame_rate=rate)}) == least


def test_it_is_small() -> None:
    assert demo_clip.path().stat().st_size < 300_000


@pytest.mark.slow
def test_write_encodes_a_file_that_decodes(tmp_path: Path) -> None:
    demo_clip.write(tmp_path / "again.mp4")
    assert sum(1 for _ in video.frames(tmp_path / "again.mp4")) == 250
