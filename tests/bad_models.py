"""Modules that cannot be captured, or only by luck; each is what somebody would write."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Accumulator(nn.Module):
    """A submodule with one state buffer, used as a part by the others."""

    total: Tensor

    def __init__(self, buffer: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4) if buffer is None else buffer)

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        return self.total * 2


class SharedBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = Accumulator()
        self.right = Accumulator(self.left.total)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class AliasedBuffers(nn.Module):
    ring: Tensor
    newest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ring", torch.zeros(1, 4))
        self.register_buffer("newest", self.ring[:, 2:])

    def forward(self, x: Tensor) -> Tensor:
        self.ring.copy_(x)
        return self.newest + 1


class GrowingBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner: Any = nn.Module()
        self.inner.register_buffer("cache", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.inner.cache = torch.cat([self.inner.cache, x])
        return self.inner.cache.mean(0, keepdim=True)


class LazyBuffer(nn.Module):
    h: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", None)

    def forward(self, x: Tensor) -> Tensor:
        self.h = x if self.h is None else self.h + x
        return self.h * 1.5


class PlainTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.h: Tensor = torch.zeros(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.h = self.inner(self.h) * 0.5 + x
        return self.h + 1


class PlainTensorInPlace(PlainTensor):
    def forward(self, x: Tensor) -> Tensor:
        self.h.mul_(0.5).add_(x)
        return self.h + 1


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x / self.count


class HelperObject(nn.Module):
    """State in a helper object's list, out of sight of torch."""

    class Cache:
        def __init__(self) -> None:
            self.frames: list[Tensor] = []

    def __init__(self) -> None:
        super().__init__()
        self.cache = self.Cache()

    def forward(self, x: Tensor) -> Tensor:
        self.cache.frames = [*self.cache.frames, x][-2:]
        return torch.stack(self.cache.frames).mean(0)


class FirstStep(nn.Module):
    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.started = False
        self.register_buffer("h", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.h.copy_(self.h * 0.9 + x * 0.1 if self.started else x)
        self.started = True
        return self.h + 1


class DataWrite(nn.Module):
    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.h + x
        self.h.data = y.detach().clone()
        return y


class NumpyWrite(nn.Module):
    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.h + x
        if not torch.compiler.is_compiling():
            self.h.numpy()[:] = y.numpy()
        return y


class ParameterWrite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.gain.add_(0.1)
        return x * self.gain


class InputWrite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return x + 1


class StubbornBatchNorm(nn.Module):
    """Keeps its batch norm in training mode whatever `eval` says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        self.body[1].train()
        return self.body(x)


class FunctionalBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, training=True)


class NoStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(4, 1), _Decide())

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x)


class _Decide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Item(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * round(x.max().item())


class Nonzero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum(dim=0, keepdim=True)


class Cond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda t: t * 2, lambda t: t - 1, (x,))


class DoubleState(nn.Module):
    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.h.add_(x)
        return self.h.float()


class NumpyModel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2)


class OnlyState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Accumulator()

    def forward(self, x: Tensor) -> None:
        self.inner(x)


_CALLS: list[float] = []


class GlobalState(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        _CALLS.append(1.0)
        return x * len(_CALLS)


class ClosureState(nn.Module):
    """State in a forward hook's closure."""

    def __init__(self) -> None:
        super().__init__()
        memory: dict[str, Any] = {"h": torch.zeros(1, 4)}

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            memory["h"] = memory["h"] * 0.5 + output
            return memory["h"]

        self.inner = nn.Linear(4, 4)
        self.inner.register_forward_hook(hook)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1
