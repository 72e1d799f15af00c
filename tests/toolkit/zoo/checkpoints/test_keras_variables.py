from __future__ import annotations

import pytest

from mvtool.zoo.checkpoints.keras_variables import KerasVariableNaming
from mvtool.zoo.checkpoints.naming import fits
from mvtool.zoo.movinet import MoViNet
from mvtool.zoo.registry import get


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scale#0", "block0_layer0.excite.position_scale"),
        ("scale#4", "block1_layer0.excite.position_scale"),
        ("scale#32", "block4_layer9.excite.position_scale"),
        ("scale#33", None),
        ("head/unknown/kernel", None),
        ("block0_layer0/bneck/surprise/kernel", None),
    ],
)
def test_positional_scalars_are_counted(name: str, expected: str | None) -> None:
    """A3 has 33 layers, four of them in block 0."""
    model = get("movinet_a3_stream").build(resolution=32)
    assert isinstance(model, MoViNet)
    assert KerasVariableNaming().target(name, model) == expected


@pytest.mark.parametrize(
    ("got", "expected", "result"),
    [
        ((80, 1, 3, 1), (80, 1, 3, 1, 1), True),
        ((80, 1, 3, 3), (80, 1, 1, 3, 3), True),
        ((600, 2048, 1, 1, 1), (600, 2048), True),
        ((80, 1, 3, 3, 3), (80, 1, 1, 3, 3), False),
        ((8, 80, 1, 1), (80, 8, 1, 1, 1), False),
        ((8,), (8,), True),
        ((), (1,), False),
    ],
)
def test_fits_ignores_unit_axes_behind_the_channels(
    got: tuple[int, ...], expected: tuple[int, ...], result: bool
) -> None:
    assert fits(got, expected) is result
