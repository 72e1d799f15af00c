"""One training step of a stream: subclip after subclip, the state carried, no gradient through it.

This is the training of Kondratyuk et al. 2021 (arXiv 2103.11511, section 3.2): the buffers hold what the frames before left in
them, as values without a gradient, so that training needs the memory of one subclip, whatever the length of the clip.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import UsageError
from mvtool.streaming.state import reset


def backward(model: nn.Module, clips: Tensor, labels: Tensor, *, subclips: int, label_smoothing: float) -> Tensor:
    """Add the gradient of a batch of clips to the parameters.

    The loss is the mean, over the subclips, of the cross entropy of the logits at the end of each: a stream is asked at every
    moment, not only when the video is over.

    Args:
        model: A stream in training mode whose states have the batch's size.
        clips: `(N, 3, T, H, W)`.
        labels: `(N,)`, class numbers.
        subclips: Number of parts; T is a multiple of it.
        label_smoothing: Of the cross entropy.

    Returns:
        The loss and the share of right answers at the end of the clips, `(2,)`, without a gradient.

    Raises:
        UsageError: T is no multiple of `subclips`.
    """
    length = part_length(clips.shape[2], subclips)
    reset(model)
    total, right = torch.zeros(()), torch.zeros(())
    for part in torch.split(clips, length, dim=2):
        logits = model(part)
        loss = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing) / subclips
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        right = (logits.detach().argmax(1) == labels).float().mean()
    return torch.stack([total, right])


def part_length(frames: int, subclips: int) -> int:
    """Frames of each part of a clip.

    Raises:
        UsageError: The clip cannot be cut into equal parts.
    """
    if frames % subclips:
        raise UsageError(
            f"Clips of {frames} frames cannot be cut into {subclips} subclips of equal length; give --subclips that divides {frames}, "
            "or another --frames."
        )
    return frames // subclips
