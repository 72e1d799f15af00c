"""The weighted layers of a model: their names, and their weights in the graphs that are made of it.

A layer is named like the module that holds its weight, for example `blocks.b0_l0.expansion.conv`. Lowering names every constant after the
operator or the parameter that it comes from, by which a layer is found again; TFLite's exporter keeps no names, but it keeps values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mvtool.errors import UsageError
from mvtool.ports import AnyArray
from mvtool.program import StreamProgram

BODY, LIFTED = "body.", "c_"
"""Prefixes of all constants of a lowered graph, and of those that were parameters without an operator of their own."""
WEIGHT_SUFFIX = ".weight"
SHOWN = 5


@dataclass(frozen=True)
class Layers:
    """Names of the weighted layers.

    Attributes:
        of_prefix: What names of the constants of lowered graphs begin with, to the name of the layer.
    """

    of_prefix: Mapping[str, str]

    @classmethod
    def of(cls, captured: StreamProgram) -> Layers:
        """The layers of a captured program: all parameters of two and more axes."""
        exported = captured.exported
        layers = {
            place: name.removesuffix(WEIGHT_SUFFIX)
            for place, name in exported.graph_signature.inputs_to_parameters.items()
            if exported.state_dict[name].dim() > 1
        }
        names = {place: exported.graph_signature.inputs_to_parameters[place].replace(".", "_") for place in layers}
        found = {f"{LIFTED}{names[place]}": layer for place, layer in layers.items()}
        for node in exported.graph.nodes:
            weight = getattr(node.args[1], "name", "") if node.op == "call_function" and len(node.args) > 1 else ""
            if weight in layers:
                found[f"{node.name}_"] = layers[weight]
        return cls(found)

    def layer(self, constant: str) -> str | None:
        """Layer of a constant of a lowered graph, None for others such as the window of a pool."""
        name = constant.removeprefix(BODY)
        return (
            self.of_prefix[max(found, key=len)]
            if (found := [p for p in self.of_prefix if name.startswith(p)])
            else None
        )

    def weights(self, lowered: StreamProgram, chosen: Collection[str]) -> frozenset[str]:
        """Names of the constants of a lowered program that hold the weights of the chosen layers.

        Raises:
            UsageError: There is no such layer.
        """
        known = set(self.of_prefix.values())
        if strange := sorted(set(chosen) - known):
            some = ", ".join(sorted(known)[:SHOWN])
            raise UsageError(
                f"{lowered.info.name} has no layer {strange[0]!r}; it has {len(known)}, for example {some}. "
                "`mvtool quantize BUILD --sensitivity` lists them."
            )
        held = constants(lowered)
        return frozenset(name for name, value in held.items() if value.ndim > 1 and self.layer(name) in chosen)


def constants(program: StreamProgram) -> dict[str, AnyArray]:
    """The constants of a program by name."""
    held = {**program.exported.state_dict, **program.exported.constants}
    return {name: value.detach().numpy() for name, value in held.items() if hasattr(value, "detach")}


def fingerprint(weight: AnyArray) -> str:
    """The same for the same values in any order of axes: TFLite transposes weights."""
    values = np.sort(np.ascontiguousarray(weight, dtype=np.float32), axis=None)
    return hashlib.sha256(values.tobytes()).hexdigest()
