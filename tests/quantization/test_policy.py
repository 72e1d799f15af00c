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
