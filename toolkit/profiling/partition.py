"""In which order TFLite executes the operators of a file of which a delegate takes some but not all.

A delegate gets its operators in groups, and TFLite makes the groups large: what is ready and of the same kind, delegated or not, moves to the
front (`PartitionGraphIntoIndependentNodeSubsets` in TensorFlow Lite's `graph_info.cc`). So a profile of such a file is not in the file's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from mvtool.profiling.alignment import align
from mvtool.profiling.written import Written


@dataclass(frozen=True)
class Subset:
    """Operators that are executed one after another.

    Attributes:
        delegated: They are one node of the delegate.
        operators: Their indices in the file, in order of execution.
    """

    delegated: bool
    operators: tuple[int, ...]


def subsets(operators: Sequence[Written], outside: AbstractSet[int]) -> list[Subset]:
    """The groups of a file in order of execution.

    Args:
        operators: Of the file.
        outside: Indices of those that no delegate takes.

    Example:
        >>> from mvtool.profiling.written import Written
        >>> def one(kind, reads, writes):
        ...     return Written(kind, kind, reads, writes, "", 0)
        >>> file = [one("MUL", (0,), (1,)), one("CAST", (1,), (2,)), one("ADD", (0,), (3,))]
        >>> [subset.operators for subset in subsets(file, {1})]
        [(0, 2), (1,)]
    """
    waiting = list(range(len(operators)))
    missing = {tensor for operator in operators for tensor in operator.writes}
    found: list[Subset] = []
    while waiting:
        taken: list[int] = []
        kind: bool | None = None
        changed = True
        while changed:
            before = len(taken)
            for index in waiting:
                if missing.intersection(operators[index].reads):
                    continue
                kind = index not in outside if kind is None else kind
                if (index not in outside) is kind:
                    taken.append(index)
                    missing.difference_update(operators[index].writes)
            waiting = [index for index in waiting if index not in set(taken)]
            changed = len(taken) > before
        if not taken:
            # A cycle: no file that a runtime executes has one.
            break
        found.append(Subset(bool(kind), tuple(taken)))
    return found


def places(
    operators: Sequence[Written], names: Sequence[str], delegated: Sequence[bool], nodes: Sequence[int]
) -> list[int | None]:
    """The operator of the file that each timed one comes from.

    Args:
        operators: Of the file.
        names: Names of the operators that ran, in order.
        delegated: Of those.
        nodes: Of those; the index in the file for one that is not delegated.

    Returns:
        Index into `operators`, None for an operator that fits none.
    """
    kinds = [operator.kind for operator in operators]
    outside = [node for node, inside in zip(nodes, delegated, strict=True) if not inside]
    groups = subsets(operators, frozenset(outside))
    if [index for group in groups if not group.delegated for index in group.operators] != outside:
        # Another runtime divides graphs in another way.
        return align(kinds, names, delegated)
    found: list[int | None] = [None] * len(names)
    start = 0
    for group in groups:
        end = start + (_run(delegated, start) if group.delegated else len(group.operators))
        if group.delegated:
            inside = align([kinds[index] for index in group.operators], names[start:end], delegated[start:end])
            found[start:end] = [None if place is None else group.operators[place] for place in inside]
        else:
            found[start:end] = group.operators
        start = end
    return found


def delegate_nodes(delegated: Sequence[bool], nodes: Sequence[int]) -> int:
    """How many times a delegate was entered, of whose parts at least one operator was timed.

    Args:
        delegated: Of the operators that ran, in order.
        nodes: Of those; a delegate counts its own from 0.
    """
    pairs = list(zip(delegated, nodes, strict=True))
    return sum(
        inside and (index == 0 or not pairs[index - 1][0] or node <= pairs[index - 1][1])
        for index, (inside, node) in enumerate(pairs)
    )


def _run(delegated: Sequence[bool], start: int) -> int:
    """How many operators from `start` on are delegated without a break."""
    return next((count for count, inside in enumerate(delegated[start:]) if not inside), len(delegated) - start)
