"""The frames file holds a real video, as the ports store it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from manifests import port_fields, port_manifest

from mvtool import demo_clip, preprocessing, video
from mvtool.bench.frames_file import DRAWN, MAX_BYTES, MAX_CALLS, feed
from mvtool.errors import VideoError
from mvtool.ports import InputPort, PortManifest, Quantization


def movie_ports(frames: int = 1, side: int = 8, quantization: Quantization | None = None) -> PortManifest:
    """Ports of a model that takes NCTHW pictures, stored in NHWC (or NTHWC with time in the height)."""
    port = InputPort(
        name="frame",
        position=0,
        shape=(1, frames * side, side, 3),
        dtype="float32" if quantization is None else "int8",
        quantization=quantization,
        logical_shape=(1, 3, frames, side, side),
        permutation=(0, 2, 3, 4, 1),
        image=True,
        logical_layout="NCTHW",
    )
    changes = {"inputs": (port,), "frames_per_step": frames, "frame_rate": 5.0}
    return port_manifest(states=()).model_copy(update=changes)


def test_frames_are_those_of_the_video_after_preprocessing(tmp_path: Path) -> None:
    ports = movie_ports(frames=2)
    fed = feed(ports)
    assert fed.origin == demo_clip.path().name
    # Ten seconds at five frames per second, two frames per call.
    assert len(fed.steps) == 25
    (file,) = fed.write(ports, tmp_path)
    stored = np.frombuffer((tmp_path / file.file).read_bytes(), np.float32).reshape(25, 2, 8, 8, 3)
    decoded = list(video.frames(str(demo_clip.path()), frame_rate=5.0))
    expected = preprocessing.apply(preprocessing.plain(8, 8), decoded[5].image)
    # Frame 5 is the second one of the third call.
    assert np.array_equal(stored[2, 1], expected)
    assert file.count == 25


def test_an_int8_port_gets_its_own_grid(tmp_path: Path) -> None:
    ports = movie_ports(quantization=Quantization(scale=1 / 255, zero_point=-128))
    fed = feed(ports)
    (file,) = fed.write(ports, tmp_path)
    stored = np.frombuffer((tmp_path / file.file).read_bytes(), np.int8)
    assert len(fed.steps) == MAX_CALLS
    assert len(stored) == MAX_CALLS * 8 * 8 * 3
    assert stored.min() < -100
    assert stored.max() > 50


def test_large_clips_are_few() -> None:
    fed = feed(movie_ports(frames=16, side=224))
    size = 16 * 224 * 224 * 3 * 4
    assert len(fed.steps) == min(MAX_BYTES // size, -(-50 // 16)) == 4


def test_a_model_without_video_is_fed_noise() -> None:
    fed = feed(port_manifest())
    assert fed.origin == DRAWN
    assert len(fed.steps) == MAX_CALLS
    assert not np.array_equal(fed.steps[0][0], fed.steps[1][0])


def test_pictures_without_time_are_single_frames() -> None:
    port = InputPort(
        **{**port_fields("frame", 0, (1, 3, 8, 8)), "image": True, "logical_layout": "NCHW", "layout": "NCHW"}
    )
    fed = feed(port_manifest(states=()).model_copy(update={"inputs": (port,), "frame_rate": 5.0}))
    assert fed.steps[0][0].shape == (1, 3, 8, 8)


def test_a_video_that_cannot_be_used(tmp_path: Path) -> None:
    broken = tmp_path / "clip.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"clip\.mp4"):
        feed(movie_ports(), str(broken))
