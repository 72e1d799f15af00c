"""Each kind of damage to a real artifact is caught with its own message, whether or not the hashes were mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mutants import Copy, Edit, float_bytes, rename_model, reset_to_zero, swap_inputs, swap_outputs, twins, untie, widen

from mvtool.build import Build
from mvtool.errors import ManifestError
from mvtool.ports import Precision, Runtime
from mvtool.verification.report import Check, Status, required_checks

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]

ALL = [(runtime, precision) for runtime in Runtime for precision in (Precision.FP32, Precision.INT8)]
MakeCopy = Callable[[Runtime, Precision], Copy]


@pytest.fixture
def copy(tiny_build: Build, tmp_path: Path) -> MakeCopy:
    return lambda runtime, precision: Copy(tiny_build, tmp_path / "copy", runtime, precision)


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_an_untouched_artifact_passes_exactly_the_required_checks(
    copy: MakeCopy, runtime: Runtime, precision: Precision
) -> None:
    results = copy(runtime, precision).examine()
    assert {r.check: r.message for r in results.values() if r.status is not Status.PASSED} == {}
    assert set(results) == set(required_checks(precision, stream=True))


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_one_changed_byte_is_a_wrong_hash(copy: MakeCopy, runtime: Runtime, precision: Precision) -> None:
    damaged = copy(runtime, precision)
    data = bytearray(damaged.weights().read_bytes())
    data[-1] ^= 1
    damaged.weights().write_bytes(bytes(data))
    result = damaged.examine()[Check.SHA256]
    assert (result.status, result.message[:11]) == (Status.FAILED, "wrong hash:")


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_a_truncated_file(copy: MakeCopy, runtime: Runtime, precision: Precision, mended: bool) -> None:
    damaged = copy(runtime, precision)
    data = damaged.weights().read_bytes()
    damaged.weights().write_bytes(data[: len(data) * 2 // 3])
    results = damaged.examine(damaged.rehashed() if mended else None)
    if not mended:
        assert results[Check.SIZE].message.startswith("truncated:")
        assert results[Check.SHA256].status is Status.FAILED
    assert results[Check.COMPLETE].status is Status.FAILED
    assert Check.LOADS not in results


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("swap", [swap_inputs, swap_outputs])
@pytest.mark.parametrize("runtime", list(Runtime))
def test_a_swapped_state_pair(copy: MakeCopy, runtime: Runtime, swap: Edit, mended: bool) -> None:
    damaged = copy(runtime, Precision.FP32)
    damaged.edit_manifest(swap)
    results = damaged.examine(damaged.rehashed(swap) if mended else None)
    assert results[Check.ORDER].message.startswith("swapped state pair:")
    assert results[Check.REPLAY_STATES].status is Status.FAILED
    assert (results[Check.EMBEDDED_MANIFEST].status is Status.PASSED) == mended


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_a_manifest_of_another_model(copy: MakeCopy, runtime: Runtime, precision: Precision, mended: bool) -> None:
    damaged = copy(runtime, precision)
    damaged.edit_manifest(rename_model)
    results = damaged.examine(damaged.rehashed(rename_model) if mended else None)
    assert results[Check.MODEL].message.startswith(
        "a manifest of another model: the file has a manifest of model 'other'"
    )
    assert Check.LOADS not in results


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_a_reset_that_is_not_the_initial_value(
    copy: MakeCopy, runtime: Runtime, precision: Precision, mended: bool
) -> None:
    damaged = copy(runtime, precision)
    damaged.edit_manifest(reset_to_zero)
    results = damaged.examine(damaged.rehashed(reset_to_zero) if mended else None)
    assert results[Check.RESET_VALUE].status is Status.FAILED
    has_zero_point = precision is Precision.INT8 and runtime is not Runtime.COREML
    assert ("it writes 0 instead of the zero point" in results[Check.RESET_VALUE].message) == has_zero_point


@pytest.mark.parametrize("runtime", list(Runtime))
def test_untied_scales_in_the_manifest(copy: MakeCopy, runtime: Runtime) -> None:
    damaged = copy(runtime, Precision.INT8)
    damaged.edit_manifest(untie)
    results = damaged.examine(damaged.rehashed())
    assert results[Check.EMBEDDED_MANIFEST].status is Status.FAILED
    assert "both sides of the loop must agree" in results[Check.EMBEDDED_MANIFEST].message
    text = (damaged.build.folder / "manifest.json").read_text()
    state = twins(damaged.entry.ports.model_dump(mode="json"))[0]
    scale = (state["output"]["quantization"] or state["output"]["grid"])["scale"]
    (damaged.build.folder / "manifest.json").write_text(text.replace(str(scale), "0.5", 1))
    with pytest.raises(ManifestError, match="both sides of the loop must agree"):
        Build.load(damaged.build.folder)


def test_untied_scales_in_a_tflite_file(copy: MakeCopy) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    damaged = copy(Runtime.TFLITE, Precision.INT8)
    port = twins(damaged.entry.ports.model_dump(mode="json"))[0]["output"]
    model = flatbuffer_utils.read_model(str(damaged.path))
    graph = model.subgraphs[0]
    graph.tensors[graph.outputs[port["position"]]].quantization.scale[0] *= 1.5
    damaged.path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    results = damaged.examine(damaged.rehashed())
    assert results[Check.TIED_STATES].message.startswith("untied scales: state 'upper_stream_buffer' enters with")
    assert results[Check.EMBEDDED_MANIFEST].status is Status.PASSED
    assert results[Check.FILE_PORTS].status is Status.FAILED


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_exchanged_operands_in_a_core_ml_package(copy: MakeCopy, precision: Precision) -> None:
    from mvtool.converters.coreml_spec import main_block
    from mvtool.runtimes.protobuf import generated_classes_alone

    damaged = copy(Runtime.COREML, precision)
    (file,) = damaged.path.rglob("*.mlmodel")
    with generated_classes_alone():
        from coremltools.proto import Model_pb2
    specification = Model_pb2.Model.FromString(file.read_bytes())
    # The running mean moves by (pooled - mean): exchanged, it moves away.
    operation = next(o for o in main_block(specification).operations if o.type == "sub")
    x, y = (operation.inputs[side].arguments[0] for side in "xy")
    x.name, y.name = y.name, x.name
    file.write_bytes(specification.SerializeToString())
    results = damaged.examine(damaged.rehashed())
    states = Check.REPLAY_STATES if precision is Precision.FP32 else Check.SIMULATION_STATES
    assert (results[states].status, results[states].tensor) == (Status.FAILED, "excite_pool_buffer")
    assert results[Check.EMBEDDED_MANIFEST].status is Status.PASSED


def test_untied_scales_in_a_core_ml_package(copy: MakeCopy) -> None:
    from mvtool.converters.coreml_spec import main_block
    from mvtool.runtimes.protobuf import generated_classes_alone

    damaged = copy(Runtime.COREML, Precision.INT8)
    port = twins(damaged.entry.ports.model_dump(mode="json"))[0]["input"]
    (file,) = damaged.path.rglob("*.mlmodel")
    with generated_classes_alone():
        from coremltools.proto import Model_pb2
    specification = Model_pb2.Model.FromString(file.read_bytes())
    operations = list(main_block(specification).operations)
    quantize = next(
        o for o in operations if o.type == "quantize" and o.inputs["input"].arguments[0].name == port["name"]
    )
    scale = next(o for o in operations if o.outputs[0].name == quantize.inputs["scale"].arguments[0].name)
    tensor = scale.attributes["val"].immediateValue.tensor
    tensor.bytes.values = b"\x00\x3c"  # 1.0 in float16
    file.write_bytes(specification.SerializeToString())
    results = damaged.examine(damaged.rehashed())
    assert results[Check.TIED_STATES].message.startswith("untied scales: state 'upper_stream_buffer' enters with")


def test_untied_scales_in_an_executorch_program(copy: MakeCopy) -> None:
    """Some places of the scale belong to copies, which XNNPACK makes without looking; another one is never unnoticed."""
    damaged = copy(Runtime.EXECUTORCH, Precision.INT8)
    scale = twins(damaged.entry.ports.model_dump(mode="json"))[0]["output"]["quantization"]["scale"]
    damaged.overwrite(damaged.places(float_bytes(scale))[-1], float_bytes(scale * 1.5))
    results = damaged.examine(damaged.rehashed())
    bad = {check for check, result in results.items() if result.status is not Status.PASSED}
    assert bad & {Check.LOADS, Check.SIMULATION_STATES}


@pytest.mark.parametrize("runtime", [Runtime.TFLITE, Runtime.EXECUTORCH])
def test_a_scale_that_the_file_does_not_use(copy: MakeCopy, runtime: Runtime) -> None:
    damaged = copy(runtime, Precision.INT8)
    damaged.edit_manifest(widen)
    results = damaged.examine(damaged.rehashed(widen))
    if runtime is Runtime.TFLITE:
        assert "in the file" in results[Check.FILE_PORTS].message
        assert results[Check.TIED_STATES].message.startswith("untied scales")
    else:
        assert results[Check.SIMULATION_STATES].tensor == "upper_stream_buffer"
        assert results[Check.SIMULATION_STATES].status is Status.FAILED


@pytest.mark.parametrize("runtime", list(Runtime))
def test_a_changed_weight_with_mended_hashes_leaves_the_stream(copy: MakeCopy, runtime: Runtime) -> None:
    from tiny_models import TinyStream, seeded

    damaged = copy(runtime, Precision.FP32)
    weight = float(seeded(TinyStream).head.weight.detach()[0, 0])
    damaged.overwrite(damaged.places(float_bytes(weight))[0], float_bytes(weight + 0.5))
    results = damaged.examine(damaged.rehashed())
    assert results[Check.SHA256].status is Status.PASSED
    assert (results[Check.REPLAY_OUTPUTS].status, results[Check.REPLAY_OUTPUTS].tensor) == (Status.FAILED, "logits")
    assert results[Check.GOLDEN].status is Status.FAILED
