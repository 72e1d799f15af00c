from __future__ import annotations

import pytest
import torch
from torch import nn

from mvtool.errors import UsageError
from mvtool.ports import StateForm
from mvtool.streaming import StateInfo, StreamConv3d, declare_state, reset, stream_state

INFO = StateInfo("Something remembered.", StateForm.OPAQUE, initial=2.0)


def test_states_are_listed_with_dotted_names_and_stay_out_of_the_state_dict() -> None:
    model = nn.Sequential(nn.Identity(), StreamConv3d(1, 1, (3, 1, 1), causal=True, input_shape=(1, 2, 2)))
    declare_state(model, "extra", (1, 4), INFO)
    states = stream_state(model)
    assert list(states) == ["extra", "1.stream.buffer"]
    assert states["1.stream.buffer"].form is StateForm.FIFO
    assert states["1.stream.buffer"].frames_held == 2
    assert list(model.state_dict()) == ["1.weight"]
    assert set(states) <= set(dict(model.named_buffers()))


def test_reset_restores_initial_values() -> None:
    module = nn.Identity()
    declare_state(module, "memory", (3,), INFO)
    assert module.get_buffer("memory").tolist() == [2.0] * 3
    module.get_buffer("memory").zero_()
    reset(module)
    assert module.get_buffer("memory").tolist() == [2.0] * 3


def test_two_states_of_one_name_are_refused() -> None:
    module = nn.Identity()
    declare_state(module, "memory", (3,), INFO)
    with pytest.raises(UsageError, match="declares the stream state 'memory' twice"):
        declare_state(module, "memory", (3,), INFO)


def test_state_follows_the_module_to_another_type() -> None:
    conv = StreamConv3d(1, 1, (3, 1, 1), causal=True, input_shape=(1, 2, 2)).double()
    conv(torch.ones(1, 1, 1, 2, 2, dtype=torch.float64))
    assert conv.stream is not None
    assert conv.stream.buffer[0, 0, 1].flatten().tolist() == [1.0] * 4
