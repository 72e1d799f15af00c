"""Reading the arguments of `torch.fx` nodes."""

from __future__ import annotations

from typing import Any

from torch import fx


def argument(node: fx.Node, index: int) -> Any:
    """Positional argument `index` of `node`.

    The operator decides what it is: a node, a number, a list of either. `fx.Node.args` is typed as the union
    of everything that any operator takes, which says less than the operator's schema does.

    Raises:
        IndexError: The node has fewer positional arguments.
    """
    return node.args[index]
