"""mvtool's own naming: the keys of `module.state_dict()`."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED


class OwnNaming:
    """Keys of the module itself; also a state_dict saved by the user."""

    name = "mvtool"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """At least half of the keys are the module's own."""
        own = module.state_dict().keys()
        return 2 * len(own & set(keys)) >= len(keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """The key itself."""
        return IGNORED if key.endswith("num_batches_tracked") else key

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged."""
        return tensor
