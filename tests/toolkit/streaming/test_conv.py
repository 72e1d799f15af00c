from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mvtool.streaming import StreamBuffer, StreamConv3d, reset, stream_state
from mvtool.streaming.padding import same_padding, same_size


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (172, 3, 2, (0, 1)),
        (172, 5, 2, (1, 2)),
        (43, 3, 2, (1, 1)),
        (43, 5, 2, (2, 2)),
        (11, 3, 1, (1, 1)),
        (8, 1, 2, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    """172 at stride 2: out 86, total (86 - 1) 2 + 3 - 172 = 1, before 0, after 1."""
    assert same_padding(size, kernel, stride) == expected


def test_same_size_rounds_up() -> None:
    assert [same_size(n, 2) for n in (172, 86, 43, 22, 11)] == [86, 43, 22, 11, 6]


def test_stream_buffer_keeps_newest_frames() -> None:
    """Three calls of 1, 3 and 1 frames through a buffer of two."""
    buffer = StreamBuffer((1, 1, 1, 1), 2)
    frames = torch.arange(1.0, 6.0).view(1, 1, 5, 1, 1)
    windows = [buffer(part).flatten().tolist() for part in torch.split(frames, [1, 3, 1], dim=2)]
    assert windows == [[0, 0, 1], [0, 1, 2, 3, 4], [3, 4, 5]]
    assert buffer.buffer.flatten().tolist() == [4, 5]


@torch.no_grad()
@pytest.mark.parametrize("parts", [[7], [1] * 7, [1, 3, 2, 1], [5, 1, 1]])
@pytest.mark.parametrize("kernel", [(5, 1, 1), (3, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_causal_convolution_equals_zero_padding(parts: list[int], kernel: tuple[int, int, int], stride: int) -> None:
    """Any chunking equals one convolution of the clip with kt - 1 zero frames in front and SAME padding written out."""
    torch.manual_seed(0)
    conv = StreamConv3d(4, 6, kernel, stride=stride, causal=True, input_shape=(2, 8, 7))
    x = torch.randn(2, 4, 7, 8, 7)
    pads = [same_padding(8, kernel[1], stride), same_padding(7, kernel[2], stride)]
    padded = functional.pad(x, (*pads[1], *pads[0], kernel[0] - 1, 0))
    expected = functional.conv3d(padded, conv.weight, stride=(1, stride, stride))
    got = torch.cat([conv(part) for part in torch.split(x, parts, dim=2)], dim=2)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_clip_convolution_pads_time_symmetrically() -> None:
    torch.manual_seed(0)
    conv = StreamConv3d(4, 4, (3, 3, 3), groups=4)
    x = torch.randn(1, 4, 5, 6, 6)
    expected = functional.conv3d(x, conv.weight, padding=1, groups=4)
    torch.testing.assert_close(conv(x), expected)


@torch.no_grad()
def test_reset_forgets() -> None:
    torch.manual_seed(0)
    conv = StreamConv3d(2, 2, (3, 1, 1), causal=True, input_shape=(1, 2, 2))
    x = torch.randn(1, 2, 1, 2, 2)
    first = conv(x)
    assert not torch.equal(conv(x), first)
    reset(conv)
    assert torch.equal(conv(x), first)


def test_state_is_cut_off_from_autograd() -> None:
    """Without the cut the graph of the whole past would hang on the buffer."""
    conv = StreamConv3d(2, 2, (3, 1, 1), causal=True, input_shape=(1, 2, 2))
    layer = torch.nn.Conv3d(2, 2, 1)
    for _ in range(2):
        y = conv(layer(torch.randn(1, 2, 1, 2, 2)))
    assert y.requires_grad
    assert conv.stream is not None
    assert not conv.stream.buffer.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("parts", [[12], [6, 6]])
@pytest.mark.parametrize(("kernel", "time_stride"), [((5, 3, 3), 2), ((3, 1, 1), 2), ((3, 1, 1), 3), ((4, 1, 1), 3)])
def test_causal_convolution_with_a_stride_in_time(
    parts: list[int], kernel: tuple[int, int, int], time_stride: int
) -> None:
    """Equals a convolution of the clip with kt - st zero frames in front, so output j ends with frame j st + st - 1."""
    torch.manual_seed(0)
    conv = StreamConv3d(2, 3, kernel, stride=2, time_stride=time_stride, causal=True, input_shape=(1, 6, 6))
    x = torch.randn(1, 2, 12, 6, 6)
    pads = same_padding(6, kernel[1], 2)
    padded = functional.pad(x, (*pads, *pads, kernel[0] - time_stride, 0))
    expected = functional.conv3d(padded, conv.weight, stride=(time_stride, 2, 2))
    got = torch.cat([conv(part) for part in torch.split(x, parts, dim=2)], dim=2)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    newest = x.clone()
    newest[:, :, -1] += 1.0
    reset(conv)
    assert not torch.equal(conv(newest)[:, :, -1], expected[:, :, -1])


@torch.no_grad()
@pytest.mark.parametrize(("frames", "before", "after"), [(8, 1, 2), (7, 2, 2)])
def test_clip_convolution_with_a_stride_in_time(frames: int, before: int, after: int) -> None:
    """SAME padding as TensorFlow computes it: 8 frames, kernel 5, stride 2 need (4 - 1) 2 + 5 - 8 = 3 frames more."""
    torch.manual_seed(0)
    conv = StreamConv3d(2, 3, (5, 3, 3), stride=2, time_stride=2)
    x = torch.randn(1, 2, frames, 6, 7)
    expected = functional.conv3d(functional.pad(x, (1, 1, 0, 1, before, after)), conv.weight, stride=2)
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-6)


def test_the_buffer_of_a_strided_kernel_is_shorter() -> None:
    """5 - 2 frames; behind a stride of 4 video frames they stand for 12."""
    conv = StreamConv3d(2, 3, (5, 1, 1), time_stride=2, causal=True, input_shape=(1, 4, 4), span=4)
    assert conv.stream is not None
    assert conv.stream.buffer.shape == (1, 2, 3, 4, 4)
    assert stream_state(conv)["stream.buffer"].frames_held == 12


def test_lost_frames_are_refused() -> None:
    conv = StreamConv3d(2, 3, (3, 1, 1), time_stride=2, causal=True, input_shape=(1, 4, 4))
    with pytest.raises(ValueError, match="temporal stride 2 got 3 frames; give a multiple of 2"):
        conv(torch.zeros(1, 2, 3, 4, 4))
    with pytest.raises(ValueError, match="kernel of 2 frames with stride 3 skips frames"):
        StreamConv3d(2, 3, (2, 1, 1), time_stride=3, causal=True)
