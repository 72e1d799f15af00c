"""Stream state in registered buffers: how it is declared, described, listed and reset.

A state is a buffer that `forward` writes with `copy_`. It is registered as non-persistent, so that a
state_dict holds weights only and a checkpoint never carries the middle of somebody's video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvtool.errors import UsageError
from mvtool.ports import StateForm

_ATTRIBUTE = "stream_states"


@dataclass(frozen=True)
class StateInfo:
    """What a state buffer holds; the manifest repeats it.

    Attributes:
        meaning: One sentence without the name of the layer.
        form: How the buffer holds the past.
        frames_held: Number of past frames in the buffer, None where it summarises all of them.
        initial: Value of every element before the first frame.
    """

    meaning: str
    form: StateForm
    frames_held: int | None = None
    initial: float = 0.0


def declare_state(module: nn.Module, name: str, shape: tuple[int, ...], info: StateInfo) -> None:
    """Register a float32 stream state `name` on `module`.

    Args:
        module: Owner of the buffer.
        name: Attribute and buffer name.
        shape: Shape of the buffer.
        info: Description, found again by `stream_state`.

    Raises:
        UsageError: `module` already declares a state of this name.
    """
    states: dict[str, StateInfo] = module.__dict__.setdefault(_ATTRIBUTE, {})
    if name in states:
        raise UsageError(
            f"{type(module).__name__} declares the stream state {name!r} twice; give each state its own name."
        )
    module.register_buffer(name, torch.full(shape, info.initial, dtype=torch.float32), persistent=False)
    states[name] = info


def write_state(buffer: Tensor, value: Tensor) -> None:
    """Overwrite a state in place with a value of the same shape, cut off from the autograd graph.

    Without the cut, every call outside `torch.no_grad` would hang the whole past of the stream onto its state.
    """
    # While exporting it would only leave a `detach` operator in the graph.
    buffer.copy_(value if torch.compiler.is_exporting() else value.detach())


def stream_state(module: nn.Module) -> dict[str, StateInfo]:
    """All declared states of `module` and its children.

    Returns:
        Dotted buffer name, as in `module.named_buffers()`, to description, in order of the modules.
    """
    return {name: info for name, info, _ in _declared(module)}


def reset(module: nn.Module) -> None:
    """Put every declared state of `module` back to its value before the first frame, in place."""
    with torch.no_grad():
        for _, info, buffer in _declared(module):
            buffer.fill_(info.initial)


def _declared(module: nn.Module) -> Iterator[tuple[str, StateInfo, Tensor]]:
    for prefix, child in module.named_modules():
        states: dict[str, StateInfo] = child.__dict__.get(_ATTRIBUTE, {})
        for name, info in states.items():
            yield f"{prefix}.{name}".lstrip("."), info, child.get_buffer(name)
