"""The PyTorch simulation of an artifact with int8 weights: the same scales and ties, computed in float.

For ExecuTorch and Core ML it is the quantized program that both were emitted from, saved in the build and edited to
round as the runtime does (`integers`, `half`); for TFLite it is read out of the artifact itself
(`mvtool.runtimes.tflite_simulation`). Each comes in two modes: `quantized`, which rounds as the artifact does, and `anchor`, which keeps the int8 weights and
leaves activations alone. The anchor must follow the fp32 stream: it proves that the simulation, and so
what it is compared with, is of this model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvtool.errors import VerificationError
from mvtool.ports import Precision, Runtime
from mvtool.quantization.plan import operator_of
from mvtool.quantization.policy import CLAMP_OPERATORS
from mvtool.runtimes.borders import Borders
from mvtool.runtimes.pytorch import open_program
from mvtool.session import Session

FUNCTIONS = frozenset({"hardswish", "hardsigmoid", "sigmoid", "silu", "tanh", "gelu", "elu", "leaky_relu", "clamp"})
"""Operators on one value. An int8 artifact of XNNPACK computes them in float between its integers, each with its own roundings."""
ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
"""What such functions are made of beside them: silu is a value times its sigmoid."""


@dataclass(frozen=True)
class Simulation:
    """Openers of the two modes, so that each is built when it is needed.

    Attributes:
        quantized: Rounds activations as the artifact does; what float operators computed, as the borders say.
        anchor: Rounds weights alone.
    """

    quantized: Callable[[Borders], Session]
    anchor: Callable[[], Session]


def find_simulation(runtime: Runtime, precision: Precision, artifact: Path, program: Path | None) -> Simulation:
    """The simulation of an artifact with int8 weights.

    Args:
        runtime: Of the artifact.
        precision: Of the artifact.
        artifact: Its file.
        program: Folder of the quantized PyTorch program, for ExecuTorch and Core ML.

    Raises:
        VerificationError: The build names no simulation for the artifact.
    """
    if runtime is Runtime.TFLITE:
        from mvtool.runtimes.tflite_simulation import open_simulation

        return Simulation(
            lambda borders: open_simulation(artifact, borders=borders), lambda: open_simulation(artifact, anchor=True)
        )
    if program is None:
        raise VerificationError(
            f"{artifact.name} is {precision}, but the build holds no quantized PyTorch program for it. Convert the model again."
        )
    return _saved(program, runtime, precision)


def _saved(folder: Path, runtime: Runtime, precision: Precision) -> Simulation:
    from mvtool.converters.program_io import load_program
    from mvtool.quantization.pt2e import register_operators
    from mvtool.verification import half, integers

    # torch can only load a graph whose operators it knows.
    register_operators()
    program = load_program(folder)
    coreml = runtime is Runtime.COREML
    rounded = half.half_precision(program) if coreml else integers.integer_arithmetic

    def quantized(borders: Borders) -> Session:
        def edit(module: Any) -> None:
            if not coreml:
                integers.round_at_run_time(module, borders)
            if precision is Precision.INT8:
                tables = [] if coreml else computed_tables(module)
                sites = [node for node in computed_floats(module) if node not in tables]
                rounded(module)
                steps_of = half.steps_of if coreml else integers.steps_of
                round_at_borders(module, sites, borders, steps_of)
                round_at_borders(module, tables, borders, steps_of, table=True)
            # Float arithmetic on int8 weights is what the program says, in every runtime.

        return open_program(program, edit=edit)

    return Simulation(quantized, lambda: open_program(program, edit=remove_activation_rounding))


def computed_floats(module: Any) -> list[Any]:
    """The quantize nodes of a `torch.fx.GraphModule` that round what float operators computed.

    Others round inputs, or results of operators on int8 values alone.
    """
    return [node for node in module.graph.nodes if _is_operator(node, "quantize") and _is_float(node.args[0])]


def computed_tables(module: Any) -> list[Any]:
    """The quantize nodes of a `torch.fx.GraphModule` that round a function of one int8 value, which a float kernel computes.

    A sum or a product of int8 tensors is none: its kernel computes on integers.
    """
    return [
        node for node in module.graph.nodes if _is_operator(node, "quantize") and _is_table(_unclamped(node.args[0]))
    ]


def round_at_borders(
    module: Any, sites: Sequence[Any], borders: Borders, steps_of: Callable[..., Any], *, table: bool = False
) -> None:
    """Let `borders` do the rounding of quantize nodes of a `torch.fx.GraphModule`.

    Args:
        module: Changed in place.
        sites: From `computed_floats`, or `computed_tables`.
        borders: Rounds.
        steps_of: Takes a value and the scale of its grid to the value in steps.
        table: They are tables.
    """

    def quantize(site: str, value: Any, scale: float, zero_point: int, low: int, high: int, dtype: Any) -> Any:
        steps = borders.round(site, steps_of(value, scale), table=table)
        return (steps + zero_point).clamp(low, high).to(dtype)

    for node in sites:
        with module.graph.inserting_before(node):
            rounded = module.graph.call_function(quantize, (node.name, *node.args))
        node.replace_all_uses_with(rounded)
        module.graph.erase_node(node)
    module.recompile()


def _unclamped(node: Any) -> Any:
    return node.args[0] if node.op == "call_function" and operator_of(node) in CLAMP_OPERATORS else node


def _is_table(node: Any) -> bool:
    behind, leaves = [node], []
    for operand in behind:
        if _is_operator(operand, "dequantize"):
            leaves.append(operand)
        elif operand.op == "call_function" and operator_of(operand) in (*FUNCTIONS, *ARITHMETIC):
            behind += [source for source in operand.all_input_nodes if source not in behind]
        else:
            return False
    integer = operator_of(node) in ARITHMETIC and all(_is_operator(n, "dequantize") for n in node.all_input_nodes)
    return len(leaves) == 1 and not integer and not _is_operator(node, "dequantize")


def _is_float(node: Any) -> bool:
    node = _unclamped(node)
    sources = [_padded(source) for source in node.all_input_nodes if source.op != "get_attr"]
    exact = all(_is_operator(source, "dequantize") for source in sources)
    return node.op == "call_function" and not exact


def _padded(node: Any) -> Any:
    """What a padding, which an int8 convolution computes with, pads; any other node itself."""
    return node.args[0] if node.op == "call_function" and operator_of(node) in ("pad", "constant_pad_nd") else node


def remove_activation_rounding(module: Any) -> None:
    """Delete every quantize-dequantize pair from a `torch.fx.GraphModule`; weights, stored as integers, stay.

    Raises:
        VerificationError: Nothing is dequantized: the program is the float one.
    """
    quantized = any(_is_operator(node, "dequantize") for node in module.graph.nodes)
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        if _is_operator(node, "dequantize") and _is_operator(source, "quantize"):
            node.replace_all_uses_with(source.args[0])
    if not quantized:
        raise VerificationError("The simulation quantizes nothing: it is the float program. Convert again.")
    module.graph.eliminate_dead_code()
    module.recompile()


def _is_operator(node: Any, kind: str) -> bool:
    name = str(getattr(node, "target", ""))
    return getattr(node, "op", "") == "call_function" and name.startswith(f"quantized_decomposed.{kind}_per_")
