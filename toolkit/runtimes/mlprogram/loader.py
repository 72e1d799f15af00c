"""From a saved `.mlpackage` to an `MLProgram`, using nothing but the files.

The protobuf classes come from coremltools; its converter, its intermediate language and its emitter are
not used, so that an error in them cannot hide in the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.mlprogram.dtypes import TensorType
from mvtool.runtimes.mlprogram.features import input_feature, output_feature
from mvtool.runtimes.mlprogram.package import model_path, read_specification
from mvtool.runtimes.mlprogram.program import Constant, MLProgram, NamedType, Operand, Operation, Reference
from mvtool.runtimes.mlprogram.values import ValueReader, tensor_type

DEFAULT_FUNCTION = "main"


def load_program(package: Path) -> MLProgram:
    """Read an ML program from disk.

    Args:
        package: Folder with the extension `.mlpackage`.

    Raises:
        ManifestError: Files are missing, damaged, or contradict each other.
        RuntimeLoadError: The model is not an ML program of one function on tensors of fixed shape.
        MissingExtraError: coremltools is not installed.
    """
    path = model_path(package)
    specification = read_specification(path)
    kind = specification.WhichOneof("Type")
    if kind != "mlProgram":
        raise RuntimeLoadError(f"{package} holds a model of type {kind!r}, expected 'mlProgram'.")
    reader = _ProgramReader(ValueReader(path.parent))
    return reader.program(specification)


class _ProgramReader:
    """Walks the protobuf of one model."""

    def __init__(self, values: ValueReader) -> None:
        self._values = values
        self._constants: dict[str, Constant] = {}
        self._types: dict[str, TensorType] = {}

    def program(self, specification: Any) -> MLProgram:
        function, opset, block = _only_function(specification)
        arguments = {entry.name: tensor_type(entry.type, f"input {entry.name!r}") for entry in function.inputs}
        if len(arguments) != len(function.inputs):
            raise RuntimeLoadError("The program names an input twice.")
        self._types.update(arguments)
        operations = tuple(self._operations(block.operations))
        description = specification.description
        inputs = tuple(input_feature(feature, arguments) for feature in description.input)
        if {feature.name for feature in inputs} != set(arguments) or len(inputs) != len(arguments):
            raise RuntimeLoadError(f"The model describes other inputs than its program takes: {sorted(arguments)}.")
        return MLProgram(
            function=DEFAULT_FUNCTION,
            opset=opset,
            specification_version=int(specification.specificationVersion),
            inputs=inputs,
            outputs=self._outputs(description.output, list(block.outputs)),
            constants=self._constants,
            operations=operations,
            metadata=dict(description.metadata.userDefined),
        )

    def _outputs(self, features: Any, results: list[str]) -> Any:
        missing = [name for name in results if name not in self._types]
        if missing:
            raise RuntimeLoadError(f"The program returns values that nothing defines: {missing}.")
        outputs = tuple(output_feature(feature, self._types) for feature in features)
        if sorted(feature.name for feature in outputs) != sorted(results):
            raise RuntimeLoadError(f"The model describes other outputs than its program returns: {results}.")
        return outputs

    def _operations(self, protos: Iterable[Any]) -> Iterable[Operation]:
        for proto in protos:
            operation = self._operation(proto)
            for output in operation.outputs:
                if output.name in self._types:
                    raise RuntimeLoadError(f"The program defines {output.name!r} twice.")
                self._types[output.name] = output.type
            if operation.kind == "const":
                self._add_constant(operation)
            else:
                yield operation

    def _operation(self, proto: Any) -> Operation:
        name = proto.outputs[0].name if proto.outputs else "(no output)"
        where = f"operation {proto.type!r} (output {name!r})"
        if proto.blocks:
            raise RuntimeLoadError(f"{where} holds nested blocks; control flow is not supported.")
        inputs = {key: self._operands(argument, where, key) for key, argument in proto.inputs.items()}
        # Up to iOS 17 the operands of constexpr operations are written as attributes; `name` is a label.
        for key, value in proto.attributes.items():
            if key in inputs:
                raise RuntimeLoadError(f"{where} gives {key!r} both as input and as attribute.")
            if key != "name":
                inputs[key] = (self._values.read(value, f"attribute {key!r} of {where}"),)
        outputs = tuple(NamedType(out.name, tensor_type(out.type, f"result {out.name!r}")) for out in proto.outputs)
        return Operation(proto.type, inputs, outputs)

    def _operands(self, argument: Any, where: str, key: str) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                operands.append(self._values.read(binding.value, f"operand {key!r} of {where}"))
            elif binding.name in self._types:
                operands.append(Reference(binding.name))
            else:
                raise RuntimeLoadError(f"{where}: operand {key!r} names {binding.name!r}, which nothing defines.")
        return tuple(operands)

    def _add_constant(self, operation: Operation) -> None:
        values = operation.inputs.get("val", ())
        if set(operation.inputs) != {"val"} or len(values) != 1 or len(operation.outputs) != 1:
            raise RuntimeLoadError(f"The constant {operation.name!r} is malformed.")
        value, declared = values[0], operation.outputs[0].type
        if not isinstance(value, Constant) or value.type != declared:
            raise RuntimeLoadError(f"The constant {operation.name!r} is not of its declared type {declared}.")
        self._constants[operation.name] = value


def _only_function(specification: Any) -> tuple[Any, str, Any]:
    """Return the function `main`, its operator set and its block."""
    program = specification.mlProgram
    names = sorted(program.functions)
    if names != [DEFAULT_FUNCTION] or specification.description.functions:
        raise RuntimeLoadError(f"The program has the functions {names}, expected only {DEFAULT_FUNCTION!r}.")
    function = program.functions[DEFAULT_FUNCTION]
    if function.opset not in function.block_specializations:
        raise RuntimeLoadError(f"The program has no block for its operator set {function.opset!r}.")
    block = function.block_specializations[function.opset]
    # An attribute could change the meaning of the program; coremltools 9.0 writes none for fixed shapes.
    unknown = sorted({*function.attributes, *block.attributes})
    if unknown or block.inputs or specification.description.state:
        raise RuntimeLoadError(
            f"The program has states, block inputs or attributes {unknown}, which are not supported."
        )
    return function, str(function.opset), block
