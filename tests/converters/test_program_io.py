"""Stream programs on disk."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_models import FOREIGN_MODELS

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.program_io import GRAPH_FILE, INITIAL_FILE, JSON_FILE, load_program, save_program
from mvtool.errors import ConversionError, StorageError
from mvtool.ports import Preprocessing
from mvtool.program import ModelInfo, StreamProgram

BACKGROUND = FOREIGN_MODELS[-1]
INFO = ModelInfo(
    "background", True, 1, 5.0, Preprocessing(resize_short_side=12, crop=(10, 10), mean=(0.1, 0.2, 0.3)), "numbers"
)


@pytest.fixture(scope="module")
def program() -> StreamProgram:
    return capture(BACKGROUND.build(), BACKGROUND.inputs, INFO)


def test_a_program_comes_back_as_it_was(program: StreamProgram, tmp_path: Path) -> None:
    loaded = load_program(save_program(program, tmp_path / "deep" / "program"))
    assert loaded.info == INFO
    assert (loaded.inputs, loaded.outputs, loaded.rewrites) == (program.inputs, program.outputs, program.rewrites)
    for a, b in zip(loaded.states, program.states, strict=True):
        assert (a.logical, a.form, a.input, a.output) == (b.logical, b.form, b.input, b.output)
        np.testing.assert_array_equal(a.initial, b.initial)
        assert a.initial.dtype == b.initial.dtype
    inputs = [torch.rand(1, 3, 10, 10), *(torch.from_numpy(s.initial) for s in program.states)]
    for a, b in zip(loaded.exported.module()(*inputs), program.exported.module()(*inputs), strict=True):
        assert torch.equal(a, b)


def test_all_state_types_survive(tmp_path: Path) -> None:
    class Types(torch.nn.Module):
        count: torch.Tensor
        seen: torch.Tensor
        small: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("seen", torch.tensor([[True, False]]))
            self.register_buffer("small", torch.tensor([0.5, 0.25], dtype=torch.float16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            self.seen |= x > 0
            self.small.add_(x[0].half())
            return x * self.count * self.seen + self.small.float()

    captured = capture(Types(), (InputSpec(None, (1, 2)),), ModelInfo("types"))
    loaded = load_program(save_program(captured, tmp_path / "program"))
    assert [str(s.initial.dtype) for s in loaded.states] == ["int64", "bool", "float16"]
    assert loaded.states[0].initial.shape == ()
    assert [s.initial.tolist() for s in loaded.states] == [3, [[True, False]], [0.5, 0.25]]


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from foreign_models import FOREIGN_MODELS
from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.program_io import save_program
from mvtool.program import ModelInfo
model = FOREIGN_MODELS[-1]
save_program(capture(model.build(), model.inputs, ModelInfo("background")), sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other-name"]
    for folder in folders:
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), str(Path(__file__).parents[1])]
        subprocess.run(command, check=True, timeout=300)
    assert digest(folders[0]) == digest(folders[1])


def test_saving_again_replaces_the_folder(program: StreamProgram, tmp_path: Path) -> None:
    folder = save_program(program, tmp_path / "program")
    (folder / "stale").write_text("left over")
    before = digest(folder)
    save_program(program, folder)
    assert digest(folder) == {name: value for name, value in before.items() if name != "stale"}
    assert [path.name for path in tmp_path.iterdir()] == ["program"]


@pytest.mark.parametrize("file", [JSON_FILE, INITIAL_FILE, GRAPH_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_program_is_refused(program: StreamProgram, tmp_path: Path, file: str, damage: str) -> None:
    folder = save_program(program, tmp_path / "program")
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:50])
    with pytest.raises(ConversionError, match="does not hold a readable stream program"):
        load_program(folder)


def test_unknown_keys_are_refused(program: StreamProgram, tmp_path: Path) -> None:
    folder = save_program(program, tmp_path / "program")
    text = (folder / JSON_FILE).read_text()
    (folder / JSON_FILE).write_text(text.replace('"inputs":', '"surprise": 1, "inputs":', 1))
    with pytest.raises(ConversionError, match="surprise"):
        load_program(folder)


def test_a_folder_that_cannot_be_written(program: StreamProgram, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be read or written: File exists"):
        save_program(program, tmp_path / "file" / "program")
