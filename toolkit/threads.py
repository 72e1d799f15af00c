"""How many threads PyTorch takes while mvtool steps a model frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """One thread in this block; the caller gets its setting back.

    A frame is too small to share: on a busy machine, threads that wait for each other took twenty times as long.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
