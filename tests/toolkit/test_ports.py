"""Encoding tensors for ports: shapes, types and values survive, scalars included."""

from __future__ import annotations

import numpy as np
from foreign_models import CountedMean

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.ports import TensorPort
from mvtool.program import ModelInfo
from mvtool.runtimes.pytorch import open_program


def test_a_scalar_stays_a_scalar() -> None:
    port = TensorPort(name="n", position=0, shape=(), dtype="float32", logical_shape=(), permutation=())
    stored = port.encode(np.array(3.0))
    assert (stored.ndim, str(stored.dtype), float(stored)) == (0, "float32", 3.0)
    assert port.decode(stored).shape == ()


def test_a_transposed_tensor_is_encoded_in_c_order() -> None:
    port = TensorPort(name="x", position=0, shape=(3, 2), dtype="float32", logical_shape=(2, 3), permutation=(1, 0))
    stored = port.encode(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, [[0, 3], [1, 4], [2, 5]])


def test_a_scalar_state_can_be_taken_out_of_a_session_and_put_back() -> None:
    session = open_program(capture(CountedMean().eval(), [InputSpec(None, (1, 12))], ModelInfo("counted_mean")))
    session.step(np.ones((1, 12), np.float32))
    kept = session.state()
    assert kept["n"].shape == ()
    session.set_state(kept)
    session.step(np.ones((1, 12), np.float32))
    assert float(session.state()["n"]) == 2.0
