"""Where models come from, and what is said when they do not."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mvtool.converters import source
from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.errors import SourceError, UsageError, WeightsError
from mvtool.program import ModelInfo
from mvtool.streaming import Gate
from mvtool.zoo.checkpoints import save_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(width, 2)
        self.register_buffer("total", torch.zeros(1, 2))

    def forward(self, x):
        self.total.add_(self.layer(x))
        return self.total * 2

    @classmethod
    def wide(cls):
        return cls(8)

def make(width: int = 4):
    return Net(width)

def broken():
    return nn.Linear(4, 2)(torch.ones(1, 3))

def number():
    return 3

ready = Net(5)
text = "not callable"
"""


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the user's package `shop.models` as current directory."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "models.py").write_text(CODE)
    (tmp_path / "shop" / "typo.py").write_text("import no_such_package_at_all\n")
    (tmp_path / "shop" / "crash.py").write_text("x = 1\nraise RuntimeError('no licence')\n")
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "shop":
            del sys.modules[name]


def width(loaded: source.Source) -> int:
    layer = loaded.module.get_submodule("layer")
    assert isinstance(layer, nn.Linear)
    return layer.in_features


@pytest.mark.usefixtures("user_code")
def test_code_of_the_current_directory() -> None:
    loaded = source.load("shop.models:make", arguments={"width": 6})
    assert (width(loaded), loaded.info.name, loaded.info.untrained) == (6, "models_make", False)
    assert loaded.inputs == ()
    assert width(source.load("shop.models:Net")) == 4
    assert width(source.load("shop.models:Net.wide")) == 8
    assert width(source.load("shop.models:ready", name="shopper")) == 5
    assert source.load("shop.models:ready", name="shopper").info.name == "shopper"


@pytest.mark.usefixtures("user_code")
@pytest.mark.parametrize(
    ("spec", "phrases"),
    [
        ("shop.nothing:make", ["'shop.nothing' is not found", "Start mvtool in the folder"]),
        ("no_such_shop:make", ["'no_such_shop' is not found"]),
        ("shop.typo:make", ["'no_such_package_at_all'", "not installed", "typo.py:1"]),
        ("shop.crash:make", ["RuntimeError: no licence", "crash.py:2"]),
        ("shop.models:mkae", ["no attribute 'mkae'", "make"]),
        ("shop.models:broken", ["raised RuntimeError", "models.py:23, in broken"]),
        ("shop.models:number", ["gave a int", "torch.nn.Module"]),
        ("shop.models:text", ["is a str", "expected a function"]),
        ("shop/models.py:make", ["package.module:factory", "shop.models:make"]),
        ("shop.models.py:make", ["shop.models:make"]),
        (":make", ["package.module:factory"]),
        ("shop/models.py", ["is a file", "models:make"]),
        ("a0.pth", ["holds weights", "--weights"]),
        ("movinet_a0_steam", ["movinet_a0_stream"]),
        ("missing.pt2", ["no file missing.pt2"]),
    ],
)
def test_what_cannot_be_found(spec: str, phrases: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        source.load(spec)
    for phrase in phrases:
        assert phrase in str(caught.value)


@pytest.mark.usefixtures("user_code")
def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(SourceError, match=r"cannot be called with the arguments \(depth\)"):
        source.load("shop.models:make", arguments={"depth": 3})
    with pytest.raises(SourceError, match="takes no arguments"):
        source.load("shop.models:ready", arguments={"width": 3})
    with pytest.raises(UsageError, match="--gate and --frames"):
        source.load("shop.models:make", gate="ref")
    with pytest.raises(UsageError, match="built already"):
        source.load(nn.Linear(2, 2), arguments={"width": 3})
    with pytest.raises(SourceError, match="got a int"):
        source.load(3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("user_code")
def test_weights_of_own_code(tmp_path: Path) -> None:
    weights = source.load("shop.models:make").module.layer.weight.detach().clone()  # type: ignore[union-attr, operator]
    trained = source.load("shop.models:make")
    save_weights(trained.module, tmp_path / "w.safetensors")
    loaded = source.load("shop.models:make", weights=tmp_path / "w.safetensors")
    kept = loaded.module.state_dict()["layer.weight"]
    assert torch.equal(kept, trained.module.state_dict()["layer.weight"])
    assert not torch.equal(kept, weights)
    assert loaded.weights[0].tensors_used > 0
    with pytest.raises(WeightsError):
        source.load("shop.models:make", arguments={"width": 6}, weights=tmp_path / "w.safetensors")


def test_a_module_in_memory_is_taken_as_it_is() -> None:
    module = nn.Linear(2, 2)
    loaded = source.load(module)
    assert loaded.module is module
    assert (loaded.info.name, loaded.info.untrained) == ("Linear", False)


def test_a_zoo_model_without_weights_is_filled_and_marked() -> None:
    arguments = {"resolution": 32, "num_classes": 10}
    loaded = source.load("movinet_a0_stream", arguments=arguments)
    assert loaded.info.untrained
    assert loaded.info.labels is None
    assert loaded.info.preprocessing is not None
    assert (loaded.info.preprocessing.crop, loaded.info.preprocessing.resize_short_side) == ((32, 32), 36)
    assert loaded.inputs == (InputSpec(None, (1, 3, 1, 32, 32)),)
    assert loaded.output_names == ("logits",)
    again = source.load("movinet_a0_stream", arguments=arguments)
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])
    gated: Any = source.load("movinet_a0_stream", gate="keras").module
    assert gated.gate is Gate.KERAS
    assert source.load("movinet_a0_stream").info.labels == "kinetics600"
    assert source.load("movinet_a0_stream", frames=8).inputs[0].shape == (1, 3, 8, 172, 172)
    assert source.load("movinet_a0_base").info.frames_per_step == 50


def test_a_zoo_model_with_weights_is_not_untrained(tmp_path: Path) -> None:
    arguments = {"resolution": 32, "num_classes": 10}
    trained = source.load("movinet_a0_stream", arguments=arguments, seed=5)
    save_weights(trained.module, tmp_path / "a0.safetensors")
    loaded = source.load("movinet_a0_stream", arguments=arguments, weights=tmp_path / "a0.safetensors")
    assert not loaded.info.untrained
    assert loaded.weights[0].naming == "mvtool"
    state = trained.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.module.state_dict().items())


@pytest.mark.parametrize(
    ("resolution", "frames", "told"),
    [
        (16, None, "cannot take pictures of 16x16.*32 or more pixels; published is 172"),
        ((172, 31), None, "172x31"),
        ("small", None, "'small' is neither a number of pixels nor a pair"),
        (172, 3, "cannot take 3 frames per call.*multiples of 2, 2 or more; published is 2"),
    ],
)
def test_sizes_that_are_impossible(resolution: Any, frames: int | None, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        source.load("movinet_a0_stream_ensemble", arguments={"resolution": resolution}, frames=frames)


@pytest.mark.parametrize("classes", [0, -3])
def test_a_number_of_classes_that_is_impossible(classes: int) -> None:
    with pytest.raises(SourceError, match=f"cannot have {classes} classes. It takes 1 or more; published are 600"):
        source.load("movinet_a0_stream", arguments={"num_classes": classes})


def test_frames_among_the_arguments() -> None:
    assert source.load("tsm_mobilenet_v2", arguments={"frames": 4, "resolution": 32}).inputs[0].shape[2] == 4
    with pytest.raises(UsageError, match="frames is given twice"):
        source.load("tsm_mobilenet_v2", arguments={"frames": 4}, frames=8)
    with pytest.raises(SourceError, match="cannot take 0 frames"):
        source.load("movinet_a0_base", frames=0)


def test_options_the_zoo_does_not_know() -> None:
    with pytest.raises(SourceError, match="movinet_a0_stream cannot be built"):
        source.load("movinet_a0_stream", arguments={"colour": "red"})
    with pytest.raises(UsageError, match="'red' is no gate"):
        source.load("movinet_a0_stream", gate="red")


class Saved(nn.Module):
    h: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.GRUCell(4, 3)
        self.register_buffer("h", torch.full((1, 3), 0.25))

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> dict[str, torch.Tensor]:
        self.h.copy_(self.inner(x, self.h))
        return {"scores": self.h * gain}


@pytest.fixture
def pt2(tmp_path: Path) -> Path:
    exported = torch.export.export(Saved().eval(), (torch.ones(1, 4),), {"gain": torch.ones(1)}, strict=False)
    torch.export.save(exported, tmp_path / "saved-model.pt2")
    return tmp_path / "saved-model.pt2"


def test_a_saved_program_brings_its_shapes_and_its_state(pt2: Path) -> None:
    loaded = source.load(pt2)
    assert loaded.info.name == "saved_model"
    assert loaded.inputs == (InputSpec(None, (1, 4), as_kwarg=False), InputSpec("gain", (1,), as_kwarg=True))
    program = capture(loaded.module, loaded.inputs, loaded.info)
    assert [port.name for port in program.inputs] == ["x", "gain"]
    assert [port.name for port in program.outputs] == ["scores"]
    assert program.states[0].logical.source == "h"
    assert program.states[0].initial.tolist() == [[0.25, 0.25, 0.25]]


def test_a_saved_program_takes_no_weights(pt2: Path) -> None:
    with pytest.raises(UsageError, match="own weights"):
        source.load(pt2, weights="a.pth")


def test_a_damaged_program_is_refused(pt2: Path) -> None:
    pt2.write_bytes(pt2.read_bytes()[:2000])
    with pytest.raises(SourceError, match="truncated"):
        source.load(pt2)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.target, "w")


def _replaced(archive: Path, ending: str, data: bytes) -> None:
    with zipfile.ZipFile(archive) as old:
        entries = [(info, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as new:
        for info, content in entries:
            new.writestr(info, data if info.filename.endswith(ending) else content)


def test_a_saved_program_cannot_run_code(pt2: Path, tmp_path: Path) -> None:
    target = tmp_path / "written-by-the-payload"
    buffer = io.BytesIO()
    torch.save([Payload(str(target))], buffer)
    _replaced(pt2, "data/sample_inputs/model.pt", buffer.getvalue())
    with pytest.raises(SourceError):
        source.load(pt2)
    assert not target.exists()


def test_a_saved_program_with_pickled_objects_is_refused(pt2: Path) -> None:
    with zipfile.ZipFile(pt2, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(3))
    with pytest.raises(SourceError, match="pickled object"):
        source.load(pt2)


def test_dynamic_shapes_must_be_given(tmp_path: Path) -> None:
    time = torch.export.Dim("time", min=2, max=9)
    exported = torch.export.export(
        nn.Conv1d(4, 2, 1).eval(), (torch.ones(1, 4, 5),), dynamic_shapes=({2: time},), strict=False
    )
    torch.export.save(exported, tmp_path / "dynamic.pt2")
    loaded = source.load(tmp_path / "dynamic.pt2")
    assert loaded.inputs == ()
    program = capture(loaded.module, (InputSpec(None, (1, 4, 3)),), ModelInfo("dynamic"))
    assert program.outputs[0].logical_shape == (1, 2, 3)
