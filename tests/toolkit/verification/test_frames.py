"""Replayed inputs: the same everywhere, all different, in the port's layout and range."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from manifests import port_fields

from mvtool.errors import UsageError
from mvtool.ports import InputPort, Preprocessing
from mvtool.verification.frames import FrameSource, digest, picture, step_noun, steps_for

VIDEO = Preprocessing(resize_short_side=24, crop=(24, 24), range=(-1.0, 1.0))


def image_port(layout: str, shape: tuple[int, ...]) -> InputPort:
    fields = port_fields("frame", 0, shape) | {"shape": (int(np.prod(shape)),)}
    return InputPort(**fields, image=True, logical_layout=layout)


def test_pictures_are_the_same_bytes_in_every_process() -> None:
    found = hashlib.sha256(np.stack([picture(i, 24, 32) for i in (0, 1, 74, 75, 299)]).tobytes()).hexdigest()
    assert found == "e9e8dc57d69b4696539d5efdddc7e0e37f09085fad27218b48cbc9109c87d4fc"


def test_three_hundred_frames_all_differ() -> None:
    source = FrameSource((image_port("NCTHW", (1, 3, 1, 24, 24)),), VIDEO)
    assert len({digest(step) for step in source.steps(300)}) == 300


def test_consecutive_frames_move_and_use_the_range() -> None:
    frames = np.stack([picture(i, 64, 64) for i in range(60)]).astype(int)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert change.min() > 1.0
    assert frames.min() < 30
    assert frames.max() > 225


@pytest.mark.parametrize(
    ("layout", "shape"), [("NCTHW", (1, 3, 1, 24, 24)), ("NTHWC", (1, 1, 24, 24, 3)), ("NCHW", (1, 3, 24, 24))]
)
def test_pictures_follow_the_logical_layout(layout: str, shape: tuple[int, ...]) -> None:
    (found,) = FrameSource((image_port(layout, shape),), VIDEO).step(5)
    expected = picture(5, 24, 24).astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
    axes = [layout.index(letter) for letter in "HWC"]
    others = [axis for axis in range(len(shape)) if axis not in axes]
    np.testing.assert_array_equal(found.transpose(*others, *axes).reshape(24, 24, 3), expected)


def test_a_step_of_several_frames_holds_consecutive_ones() -> None:
    source = FrameSource((image_port("NCTHW", (1, 3, 4, 24, 24)),))
    single = FrameSource((image_port("NCTHW", (1, 3, 1, 24, 24)),))
    np.testing.assert_array_equal(source.step(2)[0][:, :, 3], single.step(11)[0][:, :, 0])


def test_other_inputs_are_seeded_noise_and_integers_are_flags() -> None:
    ports = (
        InputPort(**port_fields("x", 0, (2, 3))),
        InputPort(**port_fields("flag", 1, (5,), dtype="int64")),
    )
    first, again, other = (FrameSource(ports, seed=seed).step(3) for seed in (1, 1, 2))
    assert digest(first) == digest(again) != digest(other)
    assert first[0].dtype == np.float32
    assert set(np.unique(first[1])) <= {0, 1}


def test_a_picture_with_two_channels_is_refused() -> None:
    with pytest.raises(UsageError, match="three channels"):
        FrameSource((image_port("NCHW", (1, 2, 24, 36)),)).step(0)


def test_steps_cover_three_hundred_frames_or_eight_clips() -> None:
    assert steps_for(stream=True, frames_per_step=1) == 300
    assert steps_for(stream=True, frames_per_step=8) == 38
    assert steps_for(stream=False, frames_per_step=50) == 2
    assert steps_for(stream=False, frames_per_step=1) == 8


def test_step_noun() -> None:
    assert step_noun(stream=True, frames_per_step=1) == "frame"
    assert step_noun(stream=True, frames_per_step=4) == "step"
    assert step_noun(stream=False, frames_per_step=16) == "clip"
