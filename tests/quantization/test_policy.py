from __future__ import annotations

import pytest
from stream_nets import stream_program

from mvtool.quantization.policy import Kernel, int8_inputs, int8_states, is_feature_map, kernel_of


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 80, 22, 22), True),
        ((1, 22, 22, 80), True),
        ((2, 22, 22, 80), True),
        ((1, 80, 1, 484), True),
        ((1, 80, 1, 1), False),
        ((8, 80, 1, 1), False),
        ((8, 1, 1, 80), False),
        ((1, 480), False),
        ((1, 16, 5), True),
        ((1, 1, 5), False),
        ((), False),
    ],
)
def test_feature_maps(shape: tuple[int, ...], expected: bool) -> None:
    assert is_feature_map(shape) is expected


def test_kernels() -> None:
    assert [kernel_of(o) for o in ("conv2d", "cat", "bmm")] == [Kernel.COMPUTE, Kernel.CARRY, Kernel.FLOAT]


def test_running_means_and_counters_stay_float() -> None:
    program = stream_program()
    assert int8_states(program) == {"past"}
    assert int8_inputs(program) == {"frame"}


def test_a_vector_is_one_wherever_its_axis_lies() -> None:
    """A channels-last twin of (1, C, 1, 1) may read (1, 1, C, 1): as a feature map its running mean would be int8."""
    for shape in ((1, 24, 1, 1), (1, 1, 24, 1), (1, 1, 1, 24), (24, 1, 1, 1)):
        assert not is_feature_map(shape)
    assert is_feature_map((1, 1, 22, 22))
    assert is_feature_map((2, 22, 22, 80))
