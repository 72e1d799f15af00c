"""The gate compares in real numbers, output by output and state by state."""

from __future__ import annotations

import numpy as np
import pytest
from manifests import port_manifest

from mvtool.bench.correctness import TOLERANCES, Expected, check
from mvtool.bench.plan import InputFile, Plan
from mvtool.errors import RunnerError, VerificationError
from mvtool.ports import Precision, Quantization

STEPS = 2
GRID = Quantization(scale=0.5, zero_point=10)


def plan(precision: Precision = Precision.FP32) -> Plan:
    """One output `y` (4,) in float32; states `left` and `right` (4,), int8 steps of 0.5 in int8."""
    scale = GRID if precision is Precision.INT8 else None
    ports = port_manifest(precision=precision, scale=scale)
    return Plan(ports=ports, model="toy.tflite", library=None, inputs=(InputFile("f", 1),), check_steps=STEPS)


def expected(states_dtype: str = "float32") -> Expected:
    outputs = tuple({"y": np.array([1, 2, 3, 4], np.float32) * step} for step in (1, 2))
    states = {name: np.array([20, 20, 20, 20], states_dtype) for name in ("left", "right")}
    return Expected("LiteRT", outputs, states)


def dump(reference: Expected) -> bytes:
    outputs = b"".join(step["y"].tobytes() for step in reference.outputs)
    return outputs + b"".join(reference.states[name].tobytes() for name in ("left", "right"))


def test_equal_outputs_pass_with_an_error_of_zero() -> None:
    found = check(plan(), dump(expected()), expected(), "phone")
    assert (found.steps, found.reference) == (STEPS, "LiteRT")
    assert [(port.port, port.error) for port in found.ports] == [("y", 0), ("left_next", 0), ("right_next", 0)]
    assert {port.tolerance for port in found.ports} == {TOLERANCES[Precision.FP32]}


def test_the_error_is_that_of_the_worst_step_as_a_part_of_the_largest_value() -> None:
    got = expected()
    got.outputs[1]["y"][0] += np.float32(2**-12)
    # The largest expected value of that step is 8.
    found = check(plan(), dump(got), expected(), "phone")
    assert found.ports[0].error == pytest.approx(2**-12 / 8)


def test_a_difference_beyond_the_tolerance_names_port_and_error() -> None:
    got = expected()
    got.outputs[0]["y"][3] += np.float32(0.5)
    with pytest.raises(VerificationError, match=r"1 of 3 outputs and states differ, most 'y' with an error of 0\.125"):
        check(plan(), dump(got), expected(), "phone")


def test_int8_states_are_compared_in_real_numbers() -> None:
    reference, got = expected("int8"), expected("int8")
    # 20 stands for (20 - 10) * 0.5 = 5; a step more is 5.5, an error of 0.1, which is just allowed.
    got.states["left"][:] = 21
    found = check(plan(Precision.INT8), dump(got), reference, "phone")
    assert found.ports[1].error == pytest.approx(0.1)
    got.states["left"][0] = 22
    with pytest.raises(VerificationError, match=r"'left_next' with an error of 0\.2"):
        check(plan(Precision.INT8), dump(got), reference, "phone")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_never_passes(value: float) -> None:
    got = expected()
    got.states["right"][2] = value
    with pytest.raises(VerificationError, match="'right_next'"):
        check(plan(), dump(got), expected(), "phone")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_dump_of_another_length_is_no_result(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RunnerError, match=r"bytes, expected 64 for 2 calls"):
        check(plan(), change(dump(expected())), expected(), "phone")
