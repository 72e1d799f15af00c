"""Profiles of `.tflite` files that mvtool did not write: order of execution, kinds of work, names, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from tflite_models import one_operator

from mvtool.build import Build
from mvtool.cli.profile import command
from mvtool.converters.tflite_graph import Graph
from mvtool.errors import RuntimeLoadError, UsageError
from mvtool.ports import Precision, Quantization
from mvtool.profiling.kinds import BETWEEN, KINDS, kind_of, work
from mvtool.profiling.partition import Subset, delegate_nodes, places, subsets
from mvtool.profiling.profile import Options, profile
from mvtool.profiling.record import PROFILE_SCHEMA, OperatorTime, Profiles
from mvtool.profiling.subjects import of_build, of_files
from mvtool.profiling.written import Written
from mvtool.schemas import published

SHAPE = (1, 8, 8, 4)


def foreign(path: Path) -> Path:
    """Without mvtool's manifest: an int8 convolution, HARD_SWISH, which XNNPACK lacks in int8, and one more; a count beside them."""
    graph = Graph.empty()
    scale = Quantization(scale=0.05, zero_point=0)
    fed = graph.add_tensor("x", SHAPE, "int8", scale)
    weight = graph.add_constant("w", np.ones((4, 1, 1, 4), np.int8))
    graph.set_quantization(weight, [0.02] * 4, [0] * 4, 0)
    made = [graph.add_tensor(name, SHAPE, "int8", scale) for name in ("a", "b", "y")]
    count = graph.add_tensor("count", (1,), "int32")
    one = graph.add_constant("one", np.ones(1, np.int32))
    more = graph.add_tensor("count_next", (1,), "int32")
    bias = graph.add_constant("bias", np.zeros(4, np.int32))
    graph.set_quantization(bias, [0.001] * 4, [0] * 4, 0)
    operators = [
        graph.new_operator("CONV_2D", [fed, weight, bias], [made[0]], "Conv2DOptions", 3),
        graph.new_operator("HARD_SWISH", [made[0]], [made[1]], "HardSwishOptions", 1),
        graph.new_operator("CONV_2D", [made[1], weight, bias], [made[2]], "Conv2DOptions", 3),
        graph.new_operator("ADD", [count, one], [more], "AddOptions", 1),
    ]
    for convolution in (operators[0], operators[2]):
        options = convolution.builtinOptions
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    graph.replace_operators(operators)
    graph.set_ports([("x", fed), ("count", count)], [("y", made[2]), ("count_next", more)])
    path.write_bytes(graph.serialise())
    return path


def one(kind: str, reads: tuple[int, ...], writes: tuple[int, ...]) -> Written:
    return Written(kind, kind, reads, writes, "", 0)


def row(label: str, ms: float, delegated: bool = True) -> OperatorTime:
    return OperatorTime(
        position=0, type=label, executed=label, ms=ms, low_ms=ms, high_ms=ms, share=0.0, delegated=delegated
    )


def test_what_is_ready_moves_to_the_front() -> None:
    file = [one("MUL", (0,), (1,)), one("CAST", (1,), (2,)), one("SUB", (2,), (3,)), one("ADD", (0,), (4,))]
    assert subsets(file, {1}) == [Subset(True, (0, 3)), Subset(False, (1,)), Subset(True, (2,))]
    assert subsets(file, set()) == [Subset(True, (0, 1, 2, 3))]
    names, delegated = ["Multiply (ND)", "Add (ND)", "CAST", "Subtract (ND)"], [True, True, False, True]
    assert places(file, names, delegated, [0, 1, 1, 0]) == [0, 3, 1, 2]
    assert delegate_nodes(delegated, [0, 1, 1, 0]) == 2


def test_a_runtime_that_divides_in_another_way_is_aligned_in_the_order_of_the_file() -> None:
    file = [one("CAST", (0,), (1,)), one("CUMSUM", (0,), (2,)), one("ADD", (0,), (3,))]
    assert places(file, ["CUMSUM", "ADD"], [False, False], [1, 2]) == [1, 2]
    # CUMSUM before CAST is no order that the groups have.
    assert places(file, ["CUMSUM", "CAST", "Add (ND)"], [False, False, True], [1, 0, 0])[2] == 2


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("CONV_2D 1x1", "1x1 convolution"),
        ("CONV_2D 3x3", "other convolution"),
        ("CONV_3D", "other convolution"),
        ("DEPTHWISE_CONV_2D 1x1", "depthwise convolution"),
        ("DepthwiseConv2d 3x3", "depthwise convolution"),
        ("StaticConstantPad + Conv2d 1x1", "1x1 convolution"),
        ("FULLY_CONNECTED", "dense"),
        ("ADD (as a table)", "elementwise"),
        ("RELU_0_TO_1", "elementwise"),
        ("TRANSPOSE", "moves of values"),
        ("PAD", "moves of values"),
        ("CAST", "quantize, dequantize, cast"),
        ("Convert", "quantize, dequantize, cast"),
        ("MEAN", "other operators"),
        ("several operators (5)", "other operators"),
    ],
)
def test_kinds_of_work(label: str, kind: str) -> None:
    assert kind_of(label) == kind
    assert kind in KINDS


def test_work_adds_up_to_the_latency() -> None:
    rows = [row("CONV_2D 1x1", 1.0), row("HARD_SWISH", 2.0, delegated=False), row("ADD", 0.5)]
    found = {part.kind: part for part in work(rows, 4.0)}
    assert list(found) == ["1x1 convolution", "elementwise", BETWEEN]
    assert (found["elementwise"].ms, found["elementwise"].outside_ms) == (2.5, 2.0)
    assert (found["elementwise"].operators, found["elementwise"].outside_operators) == (2, 1)
    assert sum(part.ms for part in found.values()) == pytest.approx(4.0)
    assert BETWEEN not in {part.kind for part in work(rows, 3.0)}


def test_a_file_without_a_manifest_is_profiled(tmp_path: Path) -> None:
    path = foreign(tmp_path / "other.tflite")
    found = profile(None, [], Options(calls=20, roofline=False), files=[path])
    (only,) = found.profiles
    assert (found.model, only.file, only.of_build, only.precision) == ("other", "other.tflite", False, Precision.INT8)
    kinds = [operator.type for operator in only.operators]
    # The count is ready at once, but of another kind; the group that begins is the delegate's.
    assert kinds == ["CONV_2D 1x1", "HARD_SWISH", "ADD", "CONV_2D 1x1"]
    assert [operator.delegated for operator in only.operators] == [True, False, False, True]
    assert only.delegate_nodes == 2
    assert only.operators[0].macs == 8 * 8 * 4 * 4
    reasons = [operator.reason for operator in only.operators if not operator.delegated]
    assert reasons[0] is not None
    assert reasons[0].startswith("XNNPACK takes no HARD_SWISH of int8")
    assert reasons[1] is not None
    assert reasons[1].startswith("XNNPACK takes no ADD of int32; its kernels are for")
    assert {operator.layer for operator in only.operators} == {None}


def test_command_compares_a_build_with_other_files(tiny_build: Build, tmp_path: Path) -> None:
    other = foreign(tmp_path / "other.tflite")
    out = tmp_path / "out"
    arguments = [str(tiny_build.folder), str(other), "--runtime", "tflite", "--precision", "int8", "--calls", "20"]
    result = CliRunner().invoke(
        command, [*arguments, "--no-roofline", "--no-layers", "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0
    document = json.loads((out / "profile.json").read_text())
    jsonschema.validate(document, published(PROFILE_SCHEMA))
    found = Profiles.model_validate(document)
    assert [one.of_build for one in found.profiles] == [True, False]
    assert found.model == tiny_build.manifest.model.name
    assert (out / "profiles.png").stat().st_size > 10_000
    assert (out / "other_tflite.png").is_file()
    for words in ("time by kind of work, tflite", "delegate nodes", "its quartiles", "other.tflite"):
        assert words in result.stdout


def test_one_file_needs_no_comparison_and_has_a_folder_beside_it(tmp_path: Path) -> None:
    path = foreign(tmp_path / "other.tflite")
    result = CliRunner().invoke(command, [str(path), "--calls", "20", "--no-roofline"], catch_exceptions=False)
    assert result.exit_code == 0
    assert sorted(made.name for made in (tmp_path / "profile").iterdir()) == ["other_tflite.png", "profile.json"]
    assert "time by kind of work" not in result.stdout


def test_files_with_one_name_are_told_apart(tiny_build: Build, tmp_path: Path) -> None:
    entry = tiny_build.artifact("tflite", "fp32")
    own = of_build(tiny_build, [entry])
    paths = []
    for folder in ("a", "b", "deep/a"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(Path(shutil.copy(tiny_build.path(entry), tmp_path / folder)))
    names = [subject.name for subject in of_files(paths, own)]
    assert names == [f"a/{entry.file}", f"b/{entry.file}", f"{entry.file} (2)"]
    with pytest.raises(UsageError, match="given twice, or is an artifact of the build"):
        of_files([tiny_build.path(entry)], own)


def refused(*arguments: object) -> Exception:
    with pytest.raises((UsageError, RuntimeLoadError)) as caught:
        CliRunner().invoke(command, [*map(str, arguments), "--no-roofline"], catch_exceptions=False)
    return caught.value


def test_what_cannot_be_profiled_is_refused(tiny_build: Build, tmp_path: Path) -> None:
    missing = tmp_path / "missing.tflite"
    assert "does not exist" in str(refused(missing))
    assert "does not exist" in str(refused(tiny_build.folder, missing))
    (tmp_path / "x.pte").write_bytes(b"\x00" * 64)
    assert "runtime has no profiler" in str(refused(tmp_path / "x.pte"))
    assert "Apple's devices" in str(refused(tiny_build.folder, tmp_path / "x.mlpackage"))
    (tmp_path / "text.tflite").write_text("no model at all, only text that is long enough to be looked at")
    assert isinstance(refused(tmp_path / "text.tflite"), RuntimeLoadError)
    (tmp_path / "text.txt").write_text("no model")
    assert "is no .tflite file. Expected" in str(refused(tmp_path / "text.txt"))
    path = foreign(tmp_path / "other.tflite")
    (tmp_path / "cut.tflite").write_bytes(path.read_bytes()[:200])
    assert re.search(r"cut\.tflite cannot be profiled\. .*truncated", str(refused(tmp_path / "cut.tflite")))
    assert "choose artifacts of a build" in str(refused(path, "--precision", "int8"))
    assert "a build folder may only come first" in str(refused(path, tiny_build.folder))
    with pytest.raises(UsageError, match="nothing to profile"):
        profile(None, [], Options(roofline=False))
    with pytest.raises(UsageError, match="several subgraphs"):
        of_files([two_subgraphs(tmp_path / "two.tflite")])


def two_subgraphs(path: Path) -> Path:
    graph = Graph.parse(one_operator("ABS", [((1, 4), None)], ((1, 4), None), version=1))
    graph.model.subgraphs = [graph.body, graph.body]
    path.write_bytes(graph.serialise())
    return path
