"""The TensorFlow Lite emitter: a lowered program becomes one `.tflite` file.

The port manifest is embedded as the metadata entry `mvtool.ports` (UTF-8 JSON). Without mvtool it is read
by walking `Model.metadata`, taking the entry of that name and decoding `Model.buffers[entry.buffer].data`:
with the Python schema of `ai-edge-litert`,

    model = schema_py_generated.Model.GetRootAs(data)
    entries = (model.Metadata(i) for i in range(model.MetadataLength()))
    buffer = next(e.Buffer() for e in entries if e.Name() == b"mvtool.ports")
    json.loads(model.Buffers(buffer).DataAsNumpy().tobytes())

A port's `position` is its place among the graph's inputs or outputs (`SubGraph.inputs`, `SubGraph.outputs`),
which is the order of `Interpreter.get_input_details()`; its `name` is the key in the one signature
(`serving_default`) and the name of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mvtool.converters.progress import part
from mvtool.converters.tflite_check import smoke_check
from mvtool.converters.tflite_export import export_float
from mvtool.converters.tflite_repairs import name_tensors, repair
from mvtool.files import write_atomic
from mvtool.ports import PortManifest, Precision, Quantization, Runtime
from mvtool.program import StreamProgram
from mvtool.quantization.pt2e import rounded_weights
from mvtool.quantization.tflite import TFLiteQuantization, quantize, quantize_weights
from mvtool.runtimes.litert import METADATA_NAME

Report = Callable[[str], None]


def emit(
    program: StreamProgram,
    path: Path,
    *,
    precision: Precision = Precision.FP32,
    quantization: TFLiteQuantization | None = None,
    report: Report | None = None,
) -> PortManifest:
    """Write a `.tflite` file, load it and compare one step with the program.

    Args:
        program: Lowered for TFLite, with the int8 recipe where `quantization` is given.
        path: File to write; it appears only when it is complete and has been executed.
        precision: `fp32`, `int8-dynamic` or `int8-weights`, where no `quantization` is given.
        quantization: Calibration; with it int8 is written.
        report: Told what was repaired and what stays float, one line at a time.

    Returns:
        The embedded manifest.

    Raises:
        ConversionError: The graph cannot be converted or quantized, or the written file computes something else.
        MissingExtraError: litert-torch or ai-edge-litert is not installed.
    """
    tell = report or (lambda line: None)
    graph = export_float(program)
    for what, count in repair(graph).items():
        tell(f"{count} x {what}")
    name_tensors(graph)
    ports: dict[str, Quantization] = {}
    left: tuple[str, ...] = ()
    if quantization is not None:
        precision = Precision.INT8
        quantized = quantize(graph, program, quantization)
        ports, left = dict(quantized.ports), quantized.left
    elif precision.quantized:
        left = quantize_weights(graph, program, precision)
        program = rounded_weights(program)
    for line in left:
        tell(f"stays float: {line}")
    manifest = with_int8_ports(program, ports).manifest(Runtime.TFLITE, precision)
    graph.set_metadata(METADATA_NAME, manifest.to_json())
    data = graph.serialise()
    seen = None if quantization is None else quantization.calibration.clips[0][0]
    with part("check"):
        smoke_check(data, program, manifest, seen)
    write_atomic(path, data)
    return manifest


def with_int8_ports(program: StreamProgram, parameters: dict[str, Quantization]) -> StreamProgram:
    """`program` whose named ports are int8 with these parameters; positions follow the port order."""

    def port(old: Any) -> Any:
        if old.name not in parameters:
            return old
        return old.model_copy(update={"dtype": "int8", "quantization": parameters[old.name]})

    inputs, outputs = (tuple(map(port, ports)) for ports in (program.inputs, program.outputs))
    states = tuple(state.with_ports(port) for state in program.states)
    return program.replace(inputs=inputs, states=states, outputs=outputs).numbered()
