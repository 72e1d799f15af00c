from __future__ import annotations

from pathlib import Path

import litert_torch
import pytest
import torch
from torch import nn

from mvtool.converters.tflite_delegation import delegation


class Mixed(nn.Module):
    """A convolution, an operator that XNNPACK does not have, and a convolution."""

    def __init__(self, outside: bool) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.outside = outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        return self.after(torch.cumsum(y, 2) if self.outside else y)


# litert-torch itself uses what PyTorch deprecates.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("outside", [False, True])
def test_what_stays_outside_is_named(outside: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    litert_torch.convert(Mixed(outside).eval(), (torch.zeros(1, 3, 8, 8),)).export(str(path))
    found = delegation(path)
    if not outside:
        assert found == {"delegates": 1, "fully_accelerated": True}
        return
    assert (found["delegates"], found["fully_accelerated"]) == (2, False)
    assert found["operators_outside"] == {"CUMSUM": 1}
