"""Changes to the protobuf of an ML program: stable names, ports described, nothing that varies.

Format: `mlmodel/format/Model.proto` and `MIL.proto` of apple/coremltools 9.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mvtool.converters.coreml_tools import Specification
from mvtool.errors import ConversionError
from mvtool.ports import Binding, InputPort, OutputPort, PortManifest, RingBinding, TensorPort

PORTS_KEY = "mvtool.ports"
# FeatureTypes.proto, ArrayFeatureType.ArrayDataType
ARRAY_TYPES = {65568: "float32", 65552: "float16", 131104: "int32"}


def main_block(specification: Specification) -> Any:
    """The operations of the program's only function."""
    function = specification.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def name_values(specification: Specification, ports: Mapping[str, str]) -> None:
    """Give every value a name that depends on the program alone.

    coremltools numbers its values with counters of the process, and moves a port's name to another
    value when the graph happens to use it.

    Args:
        specification: Changed in place.
        ports: Provisional port name to final port name.
    """
    names = dict(ports)
    used = set(ports.values())
    counts: Counter[str] = Counter()
    block = main_block(specification)
    for operation in _operations(block):
        for output in operation.outputs:
            if output.name not in names:
                names[output.name] = _fresh(operation.type, counts, used)
    for operation in _operations(block):
        _rename_operation(operation, names)
    block.outputs[:] = [names[name] for name in block.outputs]
    for entry in specification.mlProgram.functions["main"].inputs:
        entry.name = names[entry.name]
    for feature in (*specification.description.input, *specification.description.output):
        feature.name = names[feature.name]


def _fresh(kind: str, counts: Counter[str], used: set[str]) -> str:
    while True:
        name = f"{kind}_{counts[kind]}"
        counts[kind] += 1
        if name not in used:
            used.add(name)
            return name


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        for inner in operation.blocks:
            yield from _operations(inner)
        yield operation


def _rename_operation(operation: Any, names: dict[str, str]) -> None:
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                binding.name = names[binding.name]
    for output in operation.outputs:
        output.name = names[output.name]
    for inner in operation.blocks:
        inner.outputs[:] = [names.get(name, name) for name in inner.outputs]
    if "name" in operation.attributes and operation.outputs:
        operation.attributes["name"].immediateValue.tensor.strings.values[:] = [operation.outputs[0].name]


def strip(specification: Specification) -> None:
    """Remove conversion date, versions and source from the program and its metadata."""
    specification.mlProgram.attributes.clear()
    specification.description.metadata.userDefined.clear()


def describe(specification: Specification, manifest: PortManifest) -> None:
    """Write the port manifest into the metadata, and a sentence on each port for Xcode's model view."""
    description = specification.description
    description.metadata.shortDescription = (
        f"{manifest.model}, {manifest.precision.value}, one step of {manifest.frames_per_step} frame(s). "
        f"Port manifest in the metadata key '{PORTS_KEY}'." + (" Untrained weights." if manifest.untrained else "")
    )
    description.metadata.userDefined[PORTS_KEY] = manifest.to_json()
    sentences = _sentences(manifest)
    for feature in (*description.input, *description.output):
        feature.shortDescription = sentences[feature.name]


def _sentences(manifest: PortManifest) -> dict[str, str]:
    sentences = {port.name: _input_sentence(port) for port in manifest.inputs}
    sentences.update({port.name: _output_sentence(port) for port in manifest.outputs})
    meanings = {state.name: state.meaning for state in manifest.logical_states}
    for binding in manifest.states:
        sentences.update(_state_sentences(binding, meanings[binding.state]))
    return sentences


def _input_sentence(port: InputPort) -> str:
    if port.core_ml_image and port.quantization is not None:
        return "One video frame as an image; the model scales its bytes itself."
    if port.image:
        return (
            f"Video frames {port.shape}, axes {port.layout or 'as in the manifest'}, scaled and normalised by the app."
        )
    return f"Model input {port.shape}."


def _output_sentence(port: OutputPort) -> str:
    return f"Model output {port.shape}" + (f": {port.meaning}." if port.meaning else ".")


def _state_sentences(binding: Binding, meaning: str) -> dict[str, str]:
    element = binding.reset.element_hex
    zeros = element is not None and set(element) <= {"0"}
    first = "zeros" if zeros else "the reset bytes of the port manifest"
    what = f"State '{binding.state}'" + (f" ({meaning})" if meaning else "")
    if isinstance(binding, RingBinding):
        return _slot_sentences(binding, what, first)
    return {
        binding.input.name: f"{what} before the step: {first} at the first frame, then output '{binding.output.name}' "
        "of the step before, unchanged.",
        binding.output.name: f"{what} after the step: feed it to input '{binding.input.name}' of the next step.",
    }


def _slot_sentences(binding: RingBinding, what: str, first: str) -> dict[str, str]:
    added, sources = len(binding.outputs), [f"output '{port.name}'" for port in binding.outputs]
    sources = [*(f"input '{port.name}'" for port in binding.inputs[added:]), *sources]
    sentences = {
        port.name: f"{what}, slot {number} of {len(sources)}, oldest first: {first} at the first frame, then {source} of the step "
        "before, unchanged."
        for number, (port, source) in enumerate(zip(binding.inputs, sources, strict=True), start=1)
    }
    for port, target in zip(binding.outputs, binding.inputs[-added:], strict=True):
        sentences[port.name] = f"{what}, newest: feed it to input '{target.name}' of the next step."
    return sentences


def check_ports(specification: Specification, manifest: PortManifest) -> None:
    """Prove that the model description holds exactly the manifest's ports, in its order.

    Raises:
        ConversionError: A port is missing, extra, misplaced, or has another shape or type.
    """
    description = specification.description
    for side, features, ports in (
        ("input", description.input, manifest.input_ports),
        ("output", description.output, manifest.output_ports),
    ):
        got, expected = [_feature(f) for f in features], [_expected(p) for p in ports]
        if got != expected:
            wrong = next((pair for pair in zip(got, expected, strict=False) if pair[0] != pair[1]), (got, expected))
            raise ConversionError(
                f"The Core ML model of {manifest.model!r} has the {side} {wrong[0]}, expected {wrong[1]} as in the "
                "port manifest. This is a defect of the conversion; report the model that shows it."
            )


def _feature(feature: Any) -> tuple[str, str, tuple[int, ...]]:
    kind = feature.type
    if kind.WhichOneof("Type") == "imageType":
        return feature.name, "image", (kind.imageType.height, kind.imageType.width)
    array = kind.multiArrayType
    return feature.name, ARRAY_TYPES.get(array.dataType, str(array.dataType)), tuple(array.shape)


def _expected(port: TensorPort) -> tuple[str, str, tuple[int, ...]]:
    if isinstance(port, InputPort) and port.core_ml_image:
        return port.name, "image", port.shape[2:]
    return port.name, port.dtype, port.shape


def float_types(specification: Specification) -> set[str]:
    """Float types of all values of the program, as MIL names them: `FLOAT16`, `FLOAT32`, ..."""
    return {name for operation in _operations(main_block(specification)) for name in _types(operation.outputs)}


def _types(outputs: Iterable[Any]) -> Iterator[str]:
    for output in outputs:
        tensor = output.type.tensorType
        name = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
        if name.startswith(("FLOAT", "BFLOAT")):
            yield name
