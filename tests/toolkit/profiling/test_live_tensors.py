"""The largest set of tensors that are alive at once, counted by hand on graphs of a few operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mvtool.converters.tflite_graph import Graph
from mvtool.profiling.live_tensors import largest_live_bytes

ONE, FOUR = (1, 10), (4, 10)
"""40 and 160 bytes of float32."""


def graph_of(*operators: tuple[str, tuple[str, ...], str], sizes: Mapping[str, tuple[int, ...]], outputs: str) -> Graph:
    """A graph whose tensors have one letter; capital letters are constants, `i` is the input."""
    graph, tensors = Graph.empty(), {}
    for name, shape in sizes.items():
        value = np.ones(shape, np.float32)
        tensors[name] = graph.add_constant(name, value) if name.isupper() else graph.add_tensor(name, shape, "float32")
    graph.replace_operators(
        graph.new_operator(kind, [tensors[name] for name in reads], [tensors[written]])
        for kind, reads, written in operators
    )
    graph.set_ports([("i", tensors["i"])], [(name, tensors[name]) for name in outputs])
    return graph


def test_a_chain_holds_one_operand_and_one_result() -> None:
    chain = [("ADD", ("i", "C"), "a"), ("ADD", ("a", "C"), "b"), ("ADD", ("b", "C"), "c"), ("ADD", ("c", "C"), "d")]
    sizes = dict.fromkeys("iabcd", ONE) | {"C": FOUR}
    assert largest_live_bytes(graph_of(*chain, sizes=sizes, outputs="d")) == 80


def test_what_is_read_later_stays() -> None:
    skip = [("ADD", ("i", "i"), "a"), ("ADD", ("a", "a"), "b"), ("ADD", ("b", "a"), "c")]
    # While b is made: a and b, not i. While c is made: a, b and c.
    assert largest_live_bytes(graph_of(*skip, sizes=dict.fromkeys("iabc", ONE), outputs="c")) == 120


def test_outputs_stay_to_the_end_and_an_input_that_nothing_reads_needs_no_place() -> None:
    made = [("ADD", ("C", "C"), "a"), ("ADD", ("C", "C"), "b")]
    sizes = {"i": FOUR, "a": ONE, "b": ONE, "C": ONE}
    assert largest_live_bytes(graph_of(*made, sizes=sizes, outputs="ab")) == 80


def test_a_result_that_nothing_reads_is_alive_while_it_is_made() -> None:
    wasted = [("ADD", ("i", "i"), "a"), ("ADD", ("i", "i"), "b")]
    sizes = {"i": ONE, "a": FOUR, "b": ONE}
    assert largest_live_bytes(graph_of(*wasted, sizes=sizes, outputs="b")) == 40 + 160


@pytest.mark.parametrize(("kind", "expected"), [("RESHAPE", 200), ("TRANSPOSE", 320)])
def test_a_view_is_the_tensor_that_it_shows(kind: str, expected: int) -> None:
    """And keeps it alive: v is read after other tensors were made."""
    seen = [("ADD", ("i", "i"), "a"), (kind, ("a",), "v"), ("MEAN", ("v",), "b")]
    assert (
        largest_live_bytes(graph_of(*seen, sizes={"i": ONE, "a": FOUR, "v": FOUR, "b": ONE}, outputs="b")) == expected
    )


def test_memory_elsewhere_does_not_count() -> None:
    """As that of states: i comes in and s goes out through ports."""
    graph = graph_of(("ADD", ("i", "C"), "a"), ("ADD", ("a", "i"), "s"), sizes=dict.fromkeys("iasC", ONE), outputs="s")
    assert largest_live_bytes(graph) == 120
    assert largest_live_bytes(graph, (*graph.inputs, *graph.outputs)) == 40
