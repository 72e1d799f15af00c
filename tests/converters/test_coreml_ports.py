"""Which pictures Core ML can take as images, and what its other ports hold."""

from __future__ import annotations

import pytest

from mvtool.converters.coreml_ports import byte_scale
from mvtool.ports import Preprocessing


def preprocessing(**changes: object) -> Preprocessing:
    return Preprocessing(resize_short_side=20, crop=(16, 16), **changes)


def test_bytes_of_a_plain_picture_are_divided_by_255() -> None:
    found = byte_scale(preprocessing())
    assert found is not None
    assert found.scale == pytest.approx(1 / 255)
    assert found.zero_point == 0


def test_a_common_mean_and_deviation_become_scale_and_zero_point() -> None:
    """(b / 255 - 0.2) / 0.5 = 2 / 255 * (b - 51)."""
    found = byte_scale(preprocessing(mean=(0.2, 0.2, 0.2), std=(0.5, 0.5, 0.5)))
    assert found is not None
    assert found.scale == pytest.approx(2 / 255)
    assert found.zero_point == 51


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.485, 0.456, 0.406)},
        {"std": (0.229, 0.224, 0.225)},
        {"range": (-1.0, 1.0)},  # zero at byte 127.5
    ],
)
def test_a_picture_that_needs_more_than_one_scale_is_no_image(changes: dict[str, object]) -> None:
    assert byte_scale(preprocessing(**changes)) is None


def test_without_preprocessing_there_is_no_image() -> None:
    assert byte_scale(None) is None
