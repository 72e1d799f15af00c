"""The PyTorch simulation of an int8 artifact: the same scales and ties, computed in float.

For ExecuTorch and Core ML it is the quantized program that both were emitted from, saved in the build;
for TFLite it is read out of the artifact itself (`mvtool.runtimes.tflite_simulation`). Each comes in two
modes: `quantized`, which rounds as the artifact does, and `anchor`, which keeps the int8 weights and
leaves activations alone. The anchor must follow the fp32 stream: it proves that the simulation, and so
what it is compared with, is of this model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvtool.errors import VerificationError
from mvtool.ports import Runtime
from mvtool.runtimes.pytorch import open_program
from mvtool.session import Session
from mvtool.verification.half import half_precision


@dataclass(frozen=True)
class Simulation:
    """Openers of the two modes, so that each is built when it is needed.

    Attributes:
        quantized: Rounds activations as the artifact does.
        anchor: Rounds weights alone.
    """

    quantized: Callable[[], Session]
    anchor: Callable[[], Session]


def find_simulation(runtime: Runtime, artifact: Path, program: Path | None) -> Simulation:
    """The simulation of an int8 artifact.

    Args:
        runtime: Of the artifact.
        artifact: Its file.
        program: Folder of the quantized PyTorch program, for ExecuTorch and Core ML.

    Raises:
        VerificationError: The build names no simulation for the artifact.
    """
    if runtime is Runtime.TFLITE:
        from mvtool.runtimes.tflite_simulation import open_simulation

        return Simulation(lambda: open_simulation(artifact), lambda: open_simulation(artifact, anchor=True))
    if program is None:
        raise VerificationError(
            f"{artifact.name} is int8, but the build holds no quantized PyTorch program for it. Convert the model again."
        )
    return _saved(program, half=runtime is Runtime.COREML)


def _saved(folder: Path, half: bool) -> Simulation:
    from mvtool.converters.program_io import load_program
    from mvtool.quantization.pt2e import register_operators

    # torch can only load a graph whose operators it knows.
    register_operators()
    program = load_program(folder)
    edit = half_precision(program) if half else None
    return Simulation(
        lambda: open_program(program, edit=edit), lambda: open_program(program, edit=remove_activation_rounding)
    )


def remove_activation_rounding(module: Any) -> None:
    """Delete every quantize-dequantize pair from a `torch.fx.GraphModule`; weights, stored as integers, stay.

    Raises:
        VerificationError: There is no such pair: the program is not quantized.
    """
    removed = 0
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        if _is_operator(node, "dequantize") and _is_operator(source, "quantize"):
            node.replace_all_uses_with(source.args[0])
            removed += 1
    if not removed:
        raise VerificationError("The int8 simulation quantizes nothing: it is the float program. Convert again.")
    module.graph.eliminate_dead_code()
    module.recompile()


def _is_operator(node: Any, kind: str) -> bool:
    name = str(getattr(node, "target", ""))
    return getattr(node, "op", "") == "call_function" and name.startswith(f"quantized_decomposed.{kind}_per_")
