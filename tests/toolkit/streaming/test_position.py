from __future__ import annotations

import numpy as np
import pytest
import torch

from mvtool.streaming import FrameClock, PositionalEncoding
from mvtool.streaming.position import encoding

WIDTHS = [80, 128, 1344]


def worst(module: PositionalEncoding, frames: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    seen = torch.tensor(frames + 1, dtype=torch.float32).view(1, 1, -1, 1, 1)
    got = module(seen)
    return max(
        float(np.abs(got[w][0, :, :, 0, 0].T.double().numpy() - encoding(frames, w)).max()) for w in module.widths
    )


def test_definition_by_hand() -> None:
    """Width 4: angles p and p / 100; sines first, then cosines."""
    assert encoding(np.array([3.0]), 4)[0] == pytest.approx([np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)])


@pytest.mark.parametrize("start", [0, 10_000, 1_000_000, 2**24 - 2_000])
def test_exact_at_any_time(start: int) -> None:
    assert worst(PositionalEncoding(WIDTHS), np.arange(start, start + 2_000, dtype=np.float64)) < 2e-6


def test_single_steps_of_a_long_stream() -> None:
    """12,000 one-frame steps through the clock: nothing drifts."""
    clock, module = FrameClock(), PositionalEncoding([24])
    got = torch.cat([module(clock(1).seen)[24] for _ in range(12_000)], dim=2)[0, :, :, 0, 0].T
    assert float(np.abs(got.double().numpy() - encoding(np.arange(12_000.0), 24)).max()) < 2e-6


def test_widths_are_shared() -> None:
    module = PositionalEncoding([16, 8, 16])
    assert {w: tuple(v.shape) for w, v in module(torch.ones(1)).items()} == {8: (1, 8, 1, 1, 1), 16: (1, 16, 1, 1, 1)}


def test_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"even number of channels, got \[7\]"):
        PositionalEncoding([8, 7])


def test_one_frame_graph_has_no_trigonometry_or_integers() -> None:
    exported = torch.export.export(PositionalEncoding([8, 16]), (torch.ones(1),), strict=False).run_decompositions({})
    used = {str(node.target).split(".")[1] for node in exported.graph.nodes if node.op == "call_function"}
    assert used == {"mul", "add", "sub", "rsub", "floor", "abs", "slice"}


pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
