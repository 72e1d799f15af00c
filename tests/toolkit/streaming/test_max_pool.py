from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mvtool.ports import StateForm
from mvtool.streaming import StreamMaxPool3d, stream_state


def features(frames: int, height: int = 6, width: int = 7) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 3, frames, height, width)


@pytest.mark.parametrize(("frames", "before", "after"), [(6, 0, 1), (7, 1, 1), (1, 1, 1)])
def test_clip_pool_equals_same_padding_with_minus_infinity(frames: int, before: int, after: int) -> None:
    """TensorFlow's pool ignores padded cells; 6 rows of stride 2 are padded (0, 1), 7 columns (1, 1)."""
    x = features(frames)
    padded = functional.pad(x, (1, 1, 0, 1, before, after), value=-torch.inf)
    assert torch.equal(StreamMaxPool3d(3, 2)(x), functional.max_pool3d(padded, 3, 2))


@pytest.mark.parametrize("parts", [[8], [2, 2, 2, 2], [4, 2, 2]])
def test_stream_pool_puts_the_padding_in_front(parts: list[int]) -> None:
    """One frame in front: output j is the maximum over frames 2 j - 1, 2 j and 2 j + 1."""
    x = features(8)
    pool = StreamMaxPool3d(3, 2, causal=True, input_shape=(2, 3, 6, 7), span=2)
    padded = functional.pad(x, (1, 1, 0, 1, 1, 0), value=-torch.inf)
    got = torch.cat([pool(part) for part in torch.split(x, parts, dim=2)], dim=2)
    assert torch.equal(got, functional.max_pool3d(padded, 3, 2))


def test_state_is_pooled_over_space_already() -> None:
    pool = StreamMaxPool3d(3, 2, causal=True, input_shape=(2, 3, 6, 7), span=2)
    info = stream_state(pool)["stream.buffer"]
    assert pool.get_buffer("stream.buffer").shape == (2, 3, 1, 3, 4)
    assert (info.form, info.frames_held) == (StateForm.FIFO, 2)
    assert stream_state(StreamMaxPool3d(3, 2)) == {}


def test_partial_groups_are_refused() -> None:
    pool = StreamMaxPool3d(3, 2, causal=True, input_shape=(2, 3, 6, 7))
    with pytest.raises(ValueError, match="temporal stride 2 got 3 frames"):
        pool(features(3))
