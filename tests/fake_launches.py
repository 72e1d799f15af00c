"""Launches of the native runner on a fake library, whose model every test can compute by hand.

The model takes a frame of four numbers and a state of two, and gives three scores and the next state:

    scores = (sum of the frame, state[0], state[1])
    next   = (state[0] + sum of the frame, state[1] * 0.5)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mvtool.bench.run_result import RunResult
from mvtool.ports import AnyArray

FRAMES = np.arange(12, dtype="<f4").reshape(3, 4)
"""Sums 6, 22 and 38."""
RESET = (2.0, 8.0)
PLAN = """mvtool.plan/1
runtime tflite
model model.tflite
library {library}
result result.json
threads 1
input 1 frame 16 frames.bin 3
state memory 0 state_in 1 state_out 8 file reset_memory.bin
output 0 scores 12
warmup 0 0.000000
timed 5 0.000000 60.000000
end
"""
TIMEOUT_S = 60.0
FAKES = Path(__file__).parent / "android_bench" / "fake_runtimes"


@dataclass
class FakeLaunch:
    """A folder with everything that the plan names.

    Attributes:
        folder: Working folder of the program.
        program: The runner.
        plan: Text of the plan file; tests change it.
        environment: Wishes to the fake library.
    """

    folder: Path
    program: Path
    plan: str
    environment: dict[str, str] = field(default_factory=dict)

    def replace(self, old: str, new: str) -> FakeLaunch:
        """Change a part of the plan, which must be there."""
        assert old in self.plan
        self.plan = self.plan.replace(old, new)
        return self

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """The program, started."""
        (self.folder / "plan.txt").write_bytes(self.plan.encode("utf-8", "surrogateescape"))
        return subprocess.Popen(
            [str(self.program), *(arguments or ("plan.txt",))],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The program, run to its end."""
        with self.process(*arguments) as process:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def run(self) -> RunResult:
        """The result of a launch that must end well."""
        ended = self.start()
        assert ended.returncode == 0, ended.stderr
        return RunResult.parse((self.folder / "result.json").read_bytes(), "this machine")

    def refused(self, status: int) -> str:
        """What the program says of a launch that must fail; nothing may be left of a result."""
        ended = self.start()
        assert ended.returncode == status, ended.stderr
        assert not [path.name for path in self.folder.iterdir() if path.name.startswith("result.json")]
        return ended.stderr

    def dump(self) -> AnyArray:
        """The check file."""
        return np.frombuffer((self.folder / "check.bin").read_bytes(), "<f4")


def fake_launch(folder: Path, program: Path, library: Path) -> FakeLaunch:
    """A launch that ends well."""
    folder.mkdir()
    shutil.copy2(library, folder / library.name)
    (folder / "model.tflite").write_bytes(b"FAKE model")
    (folder / "frames.bin").write_bytes(FRAMES.tobytes())
    (folder / "reset_memory.bin").write_bytes(np.array(RESET, "<f4").tobytes())
    return FakeLaunch(folder, program, PLAN.format(library=library.name))


def compiled_fake(folder: Path, source: str, name: str, *flags: str) -> Path:
    """A library of `fake_runtimes/`."""
    library = folder / name
    command = ["cc", "-std=c11", "-O1", "-shared", "-fPIC", *flags, "-o", str(library), str(FAKES / source)]
    subprocess.run(command, check=True)
    return library


def small_library(path: Path, *flags: str) -> Path:
    """A library with one function."""
    source = path.with_suffix(".c")
    source.write_text(f"int {path.stem}(void);\nint {path.stem}(void) {{ return 0; }}\n", encoding="ascii")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source), *flags], check=True)
    return path
