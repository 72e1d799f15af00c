"""How much each layer alone costs when it is int8 (`mvtool.sensitivity/1`).

Every layer in turn computes in int8, with the activations behind it, and all others in float: what it reads, its weights and what it makes are
rounded. The stream is rolled through the clips, so that an error which a state carries on counts at every later step; what is compared is what leaves the model.
Layers that cost most are the first that `--max-drop` returns to float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field

from mvtool.extras import require
from mvtool.files import atomic_path
from mvtool.plotting import COLOURS
from mvtool.ports import AnyArray, Document, Precision, Runtime
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, port_ranges
from mvtool.quantization.layers import Layers
from mvtool.quantization.plan import (
    Plan,
    make_plan,
    port_nodes,
    result_nodes,
    weight_name,
    with_activations,
)
from mvtool.quantization.pt2e import register_operators
from mvtool.quantization.pt2e_graph import attribute_of, insert_plan
from mvtool.quantization.pt2e_open import open_graph
from mvtool.quantization.ranges import observe
from mvtool.verification.bounds import snr_db

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

SENSITIVITY_SCHEMA = "mvtool.sensitivity/1"
CLIPS, STEPS = 4, 50
"""So many clips of so many steps are enough to put layers in order; the time is linear in both."""
DRAWN = 40
"""Layers in a picture."""

Progress = Callable[[int, int], None]


class LayerSensitivity(Document):
    """What one layer costs.

    Attributes:
        name: Of the layer.
        activations: Whether it computes on int8 values; else its weights alone are int8.
        weights: Number of its weights.
        snr_db: Signal to noise at the model's outputs with this layer alone in int8, in dB; 200 where nothing changes.
    """

    name: str
    activations: Literal["int8", "float32"]
    weights: int
    snr_db: float


class Sensitivity(Document):
    """What every layer costs.

    Attributes:
        schema_id: Always `mvtool.sensitivity/1`; the JSON key is `schema`.
        model: Name of the model.
        origin: What the stream was rolled on.
        clips: Number of clips.
        steps: Calls of the model over all clips.
        snr_db: With everything in int8.
        rest_snr_db: With everything in int8 that belongs to no layer: the model's inputs, states, sums, products.
        layers: Most costly first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.sensitivity/1"] = Field(default="mvtool.sensitivity/1", alias="schema")
    model: str
    origin: str
    clips: int = Field(ge=1)
    steps: int = Field(ge=1)
    snr_db: float
    rest_snr_db: float
    layers: tuple[LayerSensitivity, ...]


def lowered_for_it(captured: StreamProgram) -> StreamProgram:
    """The form of a captured program that `measure` takes: that of ExecuTorch, which PT2E quantizes."""
    from mvtool.converters.executorch_graph import spelled
    from mvtool.converters.lowering import lower
    from mvtool.converters.recipe import recipe_for

    return spelled(lower(captured, recipe_for(Runtime.EXECUTORCH, Precision.INT8)))


def measure(
    captured: StreamProgram,
    lowered: StreamProgram,
    calibration: CalibrationSet,
    progress: Progress = lambda done, total: None,
) -> Sensitivity:
    """Quantize one layer after the other.

    Args:
        captured: Names the layers.
        lowered: From `lowered_for_it`.
        calibration: Its first clips are used, for the ranges too.
        progress: Told how many layers are done, of how many.

    Raises:
        ConversionError: A tensor is not finite.
    """
    register_operators()
    module = open_graph(lowered)
    short = replace(calibration, clips=tuple(clip[:STEPS] for clip in calibration.clips[:CLIPS]))
    found = observe(lowered, module, short)
    shared = port_ranges(lowered, short)
    nodes = (*result_nodes(module.graph), *port_nodes(module.graph))
    found.update(
        {
            node.name: shared[p.name]
            for p, node in zip((*lowered.output_ports, *lowered.input_ports), nodes, strict=True)
        }
    )
    plan = make_plan(lowered, module, found)
    expected = _rolled(lowered, module, short)

    def noise(members: set[str]) -> float:
        changed = _copied(module)
        insert_plan(changed, _part(plan, members), found)
        pairs = zip(_rolled(lowered, changed, short), expected, strict=True)
        return round(min(snr_db(actual, wanted) for actual, wanted in pairs), 3)

    weighted = {node.name for node in module.graph.nodes if weight_name(node) is not None}
    layers = dict(_layers(module, Layers.of(captured)))
    measured: list[LayerSensitivity] = []
    for name, members in layers.items():
        progress(len(measured), len(layers))
        measured.append(
            LayerSensitivity(
                name=name,
                activations="int8" if members & weighted & plan.int8_nodes else "float32",
                weights=sum(
                    attribute_of(module, n.args[1]).numel() for n in module.graph.nodes if n.name in members & weighted
                ),
                snr_db=noise(members),
            )
        )
    progress(len(layers), len(layers))
    everything = {node.name for node in module.graph.nodes}
    return Sensitivity(
        model=captured.info.name,
        origin=calibration.origin,
        clips=len(short.clips),
        steps=short.steps,
        snr_db=noise(everything),
        rest_snr_db=noise(everything.difference(*layers.values())),
        layers=tuple(sorted(measured, key=lambda layer: layer.snr_db)),
    )


def _copied(module: GraphModule) -> GraphModule:
    """Another graph that reads the same tensors."""
    from torch.fx import Graph, GraphModule

    graph = Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    graph.set_codegen(module.graph._codegen)
    return GraphModule(module, graph)


def _part(plan: Plan, members: set[str]) -> Plan:
    """What a plan does to some operators: they read int8, and what they make is int8."""
    stored = {name: grid for name, grid in plan.stored.items() if name in members}
    return Plan(stored, *(names & members for names in (plan.int8_nodes, plan.fused, plan.weight_only)))


def _layers(module: GraphModule, layers: Layers) -> Iterator[tuple[str, set[str]]]:
    """Each layer with the names of its operators and of their activations, in the order of the graph."""
    found: dict[str, set[Node]] = {}
    for node in module.graph.nodes:
        weight = weight_name(node)
        layer = None if weight is None else layers.layer(weight)
        if layer is not None:
            found.setdefault(layer, set()).add(node)
    for name, members in found.items():
        yield name, {node.name for node in with_activations(module.graph, members)}


def _rolled(program: StreamProgram, module: GraphModule, calibration: CalibrationSet) -> list[AnyArray]:
    """Each output of the model over all steps of all clips."""
    import torch

    seen: list[list[AnyArray]] = [[] for _ in program.outputs]
    with torch.no_grad():
        for clip in calibration.clips:
            states = [torch.from_numpy(array) for array in program.initial_ports()]
            for step in clip:
                frames = [torch.from_numpy(port.encode(a)) for port, a in zip(program.inputs, step, strict=True)]
                results = module(*frames, *states)
                states = program.following(states, results[len(program.outputs) :])
                for kept, result in zip(seen, results, strict=False):
                    kept.append(result.numpy().copy())
    return [np.stack(kept) for kept in seen]


def plot(found: Sensitivity, target: Path) -> None:
    """Draw the most costly layers as bars of their noise.

    Args:
        found: Result of `measure`.
        target: Its suffix chooses the format.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "to draw plots")
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    drawn = found.layers[:DRAWN]
    colours = {"int8": COLOURS[0], "float32": COLOURS[1]}
    figure = Figure(figsize=(9, 1.6 + 0.19 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    places = range(len(drawn), 0, -1)
    noise = [-layer.snr_db for layer in drawn]
    low = min([*noise, -found.snr_db, -found.rest_snr_db]) - 3
    axes.barh(
        places, [n - low for n in noise], left=low, color=[colours[layer.activations] for layer in drawn], height=0.75
    )
    axes.set_yticks(places, [layer.name for layer in drawn], fontsize=7)
    axes.axvline(-found.snr_db, color="black", lw=1, label="everything in int8")
    axes.axvline(-found.rest_snr_db, color="black", lw=1, ls=":", label="states, inputs, sums alone")
    axes.set_xlim(low, max([*noise, -found.snr_db]) + 2)
    axes.set_ylim(0.3, len(drawn) + 0.7)
    axes.set_xlabel("noise at the outputs with this layer alone in int8, dB of the signal")
    more = f", the {len(drawn)} most costly of {len(found.layers)} layers" if len(drawn) < len(found.layers) else ""
    axes.set_title(f"{found.model}: {found.steps} steps of {found.origin}{more}", fontsize=9, loc="left")
    bars = [
        Patch(color=colours["int8"], label="int8 layer"),
        Patch(color=colours["float32"], label="int8 weights alone"),
    ]
    axes.legend(handles=[*bars, *axes.get_lines()], fontsize=7, loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=target.suffix.removeprefix("."))
