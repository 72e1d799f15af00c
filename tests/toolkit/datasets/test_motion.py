from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from mvtool.datasets import motion
from mvtool.datasets.motion import MOTIONS, MotionVideos
from mvtool.errors import UsageError

LABELS = tuple(MOTIONS)


def test_a_clip_depends_on_the_specification_and_its_index_alone() -> None:
    videos = MotionVideos(frames=4, size=32)
    clip = videos.frames_of(17)
    assert clip.shape == (4, 32, 32, 3)
    assert clip.dtype == np.uint8
    videos.frames_of(3)
    assert np.array_equal(MotionVideos(frames=4, size=32, clips=18).frames_of(17), clip)


@pytest.mark.parametrize("other", [{"seed": 1}, {"split": "train"}, {"split": "validation"}])
def test_other_seeds_and_splits_have_other_clips(other: dict[str, object]) -> None:
    clips = MotionVideos(frames=2, size=32), MotionVideos(frames=2, size=32, **other)  # type: ignore[arg-type]
    assert not np.array_equal(clips[0].frames_of(0), clips[1].frames_of(0))


def test_labels_take_turns() -> None:
    videos = MotionVideos(clips=36)
    assert len(videos.labels) == len(set(videos.labels)) == 12
    assert np.bincount([videos.label(index) for index in range(len(videos))]).tolist() == [3] * 12
    assert videos.name(14) == "test clip 14, moves up"


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"frames": 0}, {"size": 8}, {"seed": -1}, {"split": "mine"}])
def test_impossible_specifications(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        MotionVideos(**wrong)  # type: ignore[arg-type]


def shift(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[int, int]:
    """Displacement (x, y) in pixels that fits best on the torus, by cross-correlation."""
    spectrum = np.fft.fft2(after) * np.fft.fft2(before).conj()
    y, x = np.unravel_index(np.fft.ifft2(spectrum).real.argmax(), before.shape)
    return (int(x) + 16) % 32 - 16, (int(y) + 16) % 32 - 16


@pytest.mark.parametrize(
    ("label", "direction"),
    [("moves right", (1, 0)), ("moves left", (-1, 0)), ("moves up", (0, -1)), ("moves down", (0, 1))],
)
def test_the_picture_moves_as_the_label_says(
    label: str, direction: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without contrast in the background the object alone is left to be seen.
    monkeypatch.setattr(motion, "BACKGROUND_CONTRAST", 0.0)
    videos = MotionVideos(frames=6, size=32)
    for index in range(LABELS.index(label), 60, 12):
        grey = videos.frames_of(index).mean(axis=3)
        moved = np.array([shift(a, b) for a, b in pairwise(grey - grey.mean(axis=(1, 2), keepdims=True))])
        along, across = moved @ direction, moved @ direction[::-1]
        assert (along >= 1).all(), (label, index, moved)
        assert not across.any(), (label, index, moved)


@pytest.mark.parametrize("label", ["approaches", "retreats"])
def test_size_goes_round(label: str) -> None:
    """The end of the circle looks like its start: no step is larger than the others."""
    videos = MotionVideos(frames=24, size=32)
    for index in range(LABELS.index(label), 48, 12):
        frames = videos.frames_of(index).astype(np.float64)
        steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        assert steps.max() < 2.5 * np.median(steps)


def test_second_events_begin_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        paths = motion._paths(rng, MOTIONS["moves right, then down"], 20)
        right, down = np.diff(paths[0]) > 0, np.diff(paths[1]) > 0
        assert (right != down).all()
        assert 6 <= right.sum() <= 13
        assert right[:6].all()
        assert down[13:].all()


@pytest.mark.parametrize("axis", list(motion.Axis))
def test_every_pose_is_as_likely_in_every_class_at_every_frame(axis: motion.Axis) -> None:
    """Kolmogorov and Smirnov's distance to the uniform distribution, for 2,000 clips per class."""
    rng = np.random.default_rng(1)
    period = 2 * np.pi if axis is motion.Axis.ANGLE else 1.0
    for events in MOTIONS.values():
        paths = np.stack([motion._paths(rng, events, 8)[axis.value] for _ in range(2000)])
        for poses in (paths % period / period).T[[0, 3, 7]]:
            distance = np.abs(np.sort(poses) - (np.arange(2000) + 0.5) / 2000).max()
            # 1.95 / sqrt(n) is exceeded by one in a thousand; 144 are looked at.
            assert distance < 2.4 / np.sqrt(2000)
