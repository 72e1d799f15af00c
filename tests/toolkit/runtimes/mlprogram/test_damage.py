"""Damaged, exchanged and unknown content: seen, never skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvtool.errors import ManifestError, MvtoolError, RuntimeLoadError

X = np.linspace(-1, 1, 2 * 5 * 5, dtype=np.float32).reshape(1, 2, 5, 5)
WEIGHT = np.linspace(-0.5, 0.7, 4 * 2 * 3 * 3, dtype=np.float32).reshape(4, 2, 3, 3)


def network(mb: Any, placeholders: dict[str, Any]) -> list[Any]:
    x = placeholders["x"]
    y = mb.conv(x=x, weight=WEIGHT, strides=[1, 1], pad_type="custom", pad=[1, 1, 1, 1])
    z = mb.sub(x=mb.relu(x=y), y=mb.sigmoid(x=y))
    a, b = mb.split(x=z, num_splits=2, axis=1)
    return [mb.reduce_mean(x=mb.concat(values=(b, a), axis=1), axes=[2, 3]), mb.transpose(x=z, perm=[0, 2, 3, 1])]


@pytest.fixture
def package(save_program: Any) -> Path:
    return save_program({"x": X}, network)  # type: ignore[no-any-return]


def specification(package: Path) -> tuple[Path, Any]:
    from coremltools.proto import Model_pb2

    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    return path, Model_pb2.Model.FromString(path.read_bytes())


def weights(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def operation(spec: Any, kind: str) -> Any:
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    return next(entry for entry in block.operations if entry.type == kind)


def outputs(evaluator: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([value.reshape(-1) for value in evaluator.run({"x": X}).values()])


def test_one_changed_weight_byte_changes_the_outputs(package: Path, load: Any) -> None:
    before = outputs(load(package))
    data = bytearray(weights(package).read_bytes())
    position = bytes(data).index(WEIGHT.tobytes()) + 4 * 17 + 2  # a high bit of one fraction
    data[position] ^= 0x40
    weights(package).write_bytes(bytes(data))
    assert np.abs(outputs(load(package)) - before).max() > 1e-3


def test_exchanged_operands_change_the_outputs(package: Path, load: Any) -> None:
    before = outputs(load(package))
    path, spec = specification(package)
    entry = operation(spec, "sub")
    x, y = entry.inputs["x"].arguments[0].name, entry.inputs["y"].arguments[0].name
    entry.inputs["x"].arguments[0].name, entry.inputs["y"].arguments[0].name = y, x
    path.write_bytes(spec.SerializeToString())
    np.testing.assert_allclose(outputs(load(package)), -before, atol=1e-6)
    assert np.abs(before).max() > 0.1


def test_unknown_operator_is_refused_at_load(package: Path, load: Any) -> None:
    path, spec = specification(package)
    operation(spec, "relu").type = "mystery"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(RuntimeLoadError, match=r"'mystery' \(output 'relu_0'\).*does not know"):
        load(package)


def test_unknown_operand_is_refused(package: Path, load: Any) -> None:
    path, spec = specification(package)
    entry = operation(spec, "relu")
    entry.inputs["slope"].CopyFrom(entry.inputs["x"])
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(RuntimeLoadError, match=r"operands \['slope'\] are not supported"):
        load(package)


def test_unsupported_parameter_value_is_refused(package: Path, load: Any) -> None:
    path, spec = specification(package)
    function = spec.mlProgram.functions["main"]
    for entry in function.block_specializations[function.opset].operations:
        if entry.type == "const" and "pad_type" in entry.outputs[0].name:
            entry.attributes["val"].immediateValue.tensor.strings.values[0] = "wrap"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(RuntimeLoadError, match="'pad_type' is 'wrap', supported are valid"):
        load(package)


def test_result_of_another_shape_is_refused_at_load(package: Path, load: Any) -> None:
    path, spec = specification(package)
    operation(spec, "relu").outputs[0].type.tensorType.dimensions[1].constant.size = 5
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(RuntimeLoadError, match=r"it computes torch.float32 \[1, 4, 5, 5\], but the program declares"):
        load(package)


def test_truncated_weights_are_refused(package: Path, load: Any) -> None:
    data = weights(package).read_bytes()
    for length, message in ((10, "header alone"), (64, "does not name a constant"), (200, "would lie at")):
        weights(package).write_bytes(data[:length])
        with pytest.raises(ManifestError, match=message):
            load(package)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (4, 3, "format version is 3, expected 2"),
        (64, 0, "the mark at 64 is"),
        (68, 1, "is stored as fp16, the program says fp32"),
        (68, 99, "is stored as unknown type 99"),
        (72, 4, "which do not make fp32"),
        (80, 8, "would lie at"),
    ],
)
def test_wrong_weight_metadata_is_refused(position: int, value: int, message: str, package: Path, load: Any) -> None:
    data = bytearray(weights(package).read_bytes())
    data[position] = value
    weights(package).write_bytes(bytes(data))
    with pytest.raises(ManifestError, match=message):
        load(package)


def test_weight_file_outside_the_package_is_refused(package: Path, load: Any) -> None:
    path, spec = specification(package)
    function = spec.mlProgram.functions["main"]
    for entry in function.block_specializations[function.opset].operations:
        if entry.attributes["val"].WhichOneof("value") == "blobFileValue":
            entry.attributes["val"].blobFileValue.fileName = "@model_path/../../../secret.bin"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(RuntimeLoadError, match="expected a path below @model_path"):
        load(package)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        (json.dumps({"fileFormatVersion": "2.0.0"}), "package format '2.0.0'"),
        (json.dumps({"fileFormatVersion": "1.0.0"}), "names no root model"),
        (
            json.dumps(
                {
                    "fileFormatVersion": "1.0.0",
                    "rootModelIdentifier": "a",
                    "itemInfoEntries": {"a": {"path": "../outside.mlmodel"}},
                }
            ),
            "names no root model inside",
        ),
    ],
)
def test_bad_package_manifest_is_refused(manifest: str, message: str, package: Path, load: Any) -> None:
    (package / "Manifest.json").write_text(manifest)
    with pytest.raises(ManifestError, match=message):
        load(package)


def test_inputs_must_be_the_ports(package: Path, load: Any) -> None:
    evaluator = load(package)
    with pytest.raises(ManifestError, match=r"Got the inputs \['y'\], expected \['x'\]"):
        evaluator.run({"y": X})
    with pytest.raises(ManifestError, match="got float64 of shape"):
        evaluator.run({"x": X.astype(np.float64)})
    with pytest.raises(ManifestError, match="of shape"):
        evaluator.run({"x": X[0]})


def test_index_out_of_range_is_an_error(save_program: Any, load: Any) -> None:
    x, i = np.arange(3, dtype=np.float32), np.array([3], np.int32)
    evaluator = load(save_program({"x": x, "i": i}, lambda mb, p: [mb.gather(x=p["x"], indices=p["i"])]))
    with pytest.raises(RuntimeLoadError, match=r"'gather'.*failed on these values"):
        evaluator.run({"x": x, "i": i})


@pytest.mark.parametrize("target", ["specification", "weights", "manifest"])
def test_random_damage_raises_only_errors_of_mvtool(target: str, package: Path, load: Any, rng: Any) -> None:
    path = {
        "specification": specification(package)[0],
        "weights": weights(package),
        "manifest": package / "Manifest.json",
    }[target]
    data = path.read_bytes()
    copy = package.with_name("copy.mlpackage")
    shutil.copytree(package, copy)
    victim = copy / path.relative_to(package)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        victim.write_bytes(bytes(damaged[: rng.integers(len(data))] if rng.random() < 0.1 else damaged))
        try:
            load(copy).run({"x": X})
        except MvtoolError:
            refused += 1
    assert refused > 0
