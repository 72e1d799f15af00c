"""The plan says everything that the runner must know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from manifests import binding, port_manifest

from mvtool.bench.plan import InputFile, Plan
from mvtool.ports import Quantization, ResetBytes

INPUTS = (InputFile("input_x.bin", 3),)


def plan() -> Plan:
    return Plan(ports=port_manifest(), model="model.tflite", library="libLiteRt.so", inputs=INPUTS)


def test_lines_of_a_plan() -> None:
    full = replace(
        plan(),
        affinity="c0",
        check_steps=2,
        warmup_invokes=5,
        warmup_seconds=0.5,
        min_invokes=20,
        min_seconds=1.0,
        max_seconds=20.0,
        calls_per_second=2.5,
    )
    assert full.to_text().splitlines() == [
        "mvtool.plan/1",
        "runtime tflite",
        "model model.tflite",
        "library libLiteRt.so",
        "result result.json",
        "threads 1",
        "affinity c0",
        "input 0 x 16 input_x.bin 3",
        "state left 1 left 1 left_next 16 element 00000000",
        "state right 2 right 2 right_next 16 element 00000000",
        "output 0 y 16",
        "check 2 check.bin",
        "warmup 5 0.500000",
        "timed 20 1.000000 20.000000",
        "pace 2.500000000",
        "end",
    ]
    # Two calls of a 16-byte output, then two states of 16 bytes.
    assert full.check_bytes == 2 * 16 + 2 * 16


def test_what_is_not_asked_for_has_no_line() -> None:
    text = replace(plan(), library=None).to_text()
    assert "library -" in text
    assert not {"affinity", "check", "pace"} & {line.split()[0] for line in text.splitlines()}


def test_the_zero_point_is_the_reset_value_of_an_int8_state() -> None:
    ports = port_manifest(scale=Quantization(scale=0.1, zero_point=-3))
    text = replace(plan(), ports=ports).to_text()
    assert "state left 1 left 1 left_next 4 element fd" in text


def test_reset_values_that_differ_go_into_a_file() -> None:
    state = binding("left", 0, (4,))
    values = np.array([1, 2, 3, 4], np.float32)
    ports = port_manifest(states=("left",)).model_copy(
        update={"states": (state.model_copy(update={"reset": ResetBytes.of(values)}),)}
    )
    made = replace(plan(), ports=ports)
    assert "state left 1 left 1 left_next 16 file reset_left.bin" in made.to_text()
    assert made.reset_files() == {"reset_left.bin": values.tobytes()}
