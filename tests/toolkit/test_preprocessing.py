from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mvtool import preprocessing
from mvtool.errors import VideoError
from mvtool.ports import Preprocessing


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Pillow's antialiased bilinear resize of each channel, without rounding to bytes."""
    channels = [Image.fromarray(frame[..., c].astype(np.float32)) for c in range(3)]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels], axis=-1)


@pytest.mark.parametrize(
    ("size", "short_side", "crop"),
    [
        ((256, 340), 192, (172, 172)),
        ((340, 256), 192, (172, 172)),
        ((101, 57), 172, (172, 172)),
        ((480, 853), 256, (224, 224)),
        ((172, 172), 172, (172, 172)),
        ((7, 5), 32, (30, 31)),
        ((240, 321), 192, (182, 192)),
    ],
)
def test_resize_equals_pillow(size: tuple[int, int], short_side: int, crop: tuple[int, int]) -> None:
    frame = noise(*size)
    height, width = preprocessing.resized_size(*size, short_side)
    expected = pillow(frame, height, width)
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    got = preprocessing.crop_resized(frame, short_side, crop)
    assert got.shape == (*crop, 3)
    assert got.dtype == np.float32
    # 255 in float32 has steps of 1.5e-5; the sums are taken in another order.
    np.testing.assert_allclose(got, expected[top : top + crop[0], left : left + crop[1]], atol=2e-4)


def test_halving_by_hand() -> None:
    """Scale 2: a triangle of half width 2 has the weights 1/8, 3/8, 3/8, 1/8, at the edge 3/7, 3/7, 1/7."""
    row = np.asarray([0, 70, 140, 210], np.uint8)
    frame = np.repeat(np.tile(row, (4, 1))[..., None], 3, axis=2)
    got = preprocessing.crop_resized(frame, 2, (2, 2))
    left = (3 * 0 + 3 * 70 + 140) / 7
    np.testing.assert_allclose(got[0, :, 0], [left, 210 - left], atol=1e-4)


def test_doubling_by_hand() -> None:
    """Scale 1/2 with half-pixel centres: 0, 1/4, 3/4, 1 of the way between two pixels."""
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[:, 1] = 100
    got = preprocessing.crop_resized(frame, 4, (4, 4))
    np.testing.assert_allclose(got[2, :, 1], [0, 25, 75, 100], atol=1e-5)


def test_camera_bytes_pass_unchanged_at_the_same_size() -> None:
    frame = noise(172, 172)
    contract = Preprocessing(resize_short_side=172, crop=(172, 172))
    values = preprocessing.apply(contract, frame)
    np.testing.assert_array_equal(np.rint(values / np.float32(1 / 255)), frame)
    assert values.min() >= 0
    assert values.max() <= 1


def test_range_mean_std_and_colour_in_the_documented_order() -> None:
    frame = np.empty((4, 4, 3), np.uint8)
    frame[:] = (255, 0, 51)
    contract = Preprocessing(
        resize_short_side=4, crop=(4, 4), colour="BGR", range=(-1.0, 1.0), mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)
    )
    # BGR: 51, 0, 255 -> -0.6, -1, 1 -> minus mean, divided by std.
    expected = [(-0.6 - 0.1) / 0.5, (-1 - 0.2) / 1.0, (1 - 0.3) / 2.0]
    np.testing.assert_allclose(preprocessing.apply(contract, frame)[1, 2], expected, rtol=1e-6)


def test_the_crop_is_the_centre() -> None:
    frame = np.zeros((10, 21, 3), np.uint8)
    frame[4, 9] = 255
    got = preprocessing.crop_resized(frame, 10, (4, 5))
    # Rows 3..6 and columns 8..12 are kept.
    assert got[1, 1, 0] == 255
    assert np.count_nonzero(got) == 3


def test_a_crop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(VideoError, match=r"10x30 pixels becomes 12x36 .* crops 20x20"):
        preprocessing.crop_resized(noise(30, 10), 12, (20, 20))


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_other_than_rgb_bytes_is_refused(frame: NDArray[np.uint8]) -> None:
    with pytest.raises(VideoError, match=r"expected \(height, width, 3\) of uint8"):
        preprocessing.apply(Preprocessing(resize_short_side=4, crop=(4, 4)), frame)


def test_the_same_bytes_whatever_the_memory_layout() -> None:
    frame = noise(50, 61)
    mirrored = frame[:, ::-1].copy()[:, ::-1]
    first = preprocessing.crop_resized(frame, 32, (32, 32))
    assert first.tobytes() == preprocessing.crop_resized(mirrored, 32, (32, 32)).tobytes()
    assert first.tobytes() == preprocessing.crop_resized(np.asfortranarray(frame), 32, (32, 32)).tobytes()


@pytest.mark.parametrize("crop", [(16, 32), (32, 16), (24, 24)])
@pytest.mark.parametrize("size", [(100, 100), (90, 160), (160, 90), (17, 200)])
def test_the_plain_contract_fits_every_shape_of_video(crop: tuple[int, int], size: tuple[int, int]) -> None:
    found = preprocessing.apply(preprocessing.plain(*crop), np.full((*size, 3), 51, np.uint8))
    assert found.shape == (*crop, 3)
    np.testing.assert_allclose(found, 0.2, atol=1e-6)
