"""A `.tflite` of one dense layer with a MiB of weights, made without a converter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from manifests import port_fields
from tflite_models import one_operator

from mvtool.converters.tflite_graph import Graph
from mvtool.ports import InputPort, OutputPort, PortManifest, Precision, Runtime
from mvtool.runtimes.litert import METADATA_NAME

WIDTH = 512
WEIGHTS = np.random.default_rng(5).normal(size=(WIDTH, WIDTH)).astype(np.float32)


def write(path: Path) -> Path:
    """The input `x0` and the output `y` have `WIDTH` numbers each."""
    model = one_operator(
        "FULLY_CONNECTED",
        [((1, WIDTH), None)],
        ((1, WIDTH), None),
        constants=[WEIGHTS],
        options="FullyConnectedOptions",
        version=1,
    )
    graph = Graph.parse(model)
    ports = PortManifest(
        model="heavy",
        runtime=Runtime.TFLITE,
        precision=Precision.FP32,
        inputs=(InputPort(**port_fields("x0", 0, (1, WIDTH))),),
        outputs=(OutputPort(**port_fields("y", 0, (1, WIDTH))),),
    )
    graph.set_metadata(METADATA_NAME, ports.model_dump_json(by_alias=True))
    path.write_bytes(graph.serialise())
    return path
