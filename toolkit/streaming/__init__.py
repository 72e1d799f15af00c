"""PyTorch building blocks whose stream state lives in registered buffers.

A block remembers the past in non-persistent buffers that its `forward` updates in place, so the same
module works frame by frame, in chunks of any length and on a whole clip, and `torch.export` reports every
state as a mutated buffer. `declare_state` attaches a description to each buffer, `stream_state` lists
them and `reset` returns to the state before the first frame.
"""

from mvtool.streaming.activations import Activation, Gate
from mvtool.streaming.clock import Clock, FrameClock
from mvtool.streaming.conv import StreamBuffer, StreamConv3d
from mvtool.streaming.excite import ExciteType, SqueezeExcite
from mvtool.streaming.max_pool import StreamMaxPool3d
from mvtool.streaming.pool import CumulativeMean
from mvtool.streaming.position import PositionalEncoding
from mvtool.streaming.same_pool import SameAveragePool, SameMaxPool
from mvtool.streaming.state import StateInfo, declare_state, reset, stream_state, write_state

__all__ = [
    "Activation",
    "Clock",
    "CumulativeMean",
    "ExciteType",
    "FrameClock",
    "Gate",
    "PositionalEncoding",
    "SameAveragePool",
    "SameMaxPool",
    "SqueezeExcite",
    "StateInfo",
    "StreamBuffer",
    "StreamConv3d",
    "StreamMaxPool3d",
    "declare_state",
    "reset",
    "stream_state",
    "write_state",
]
