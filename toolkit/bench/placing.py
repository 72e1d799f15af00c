"""Putting all that a launch needs into a workspace."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mvtool.bench.device import Runner, Workspace
from mvtool.bench.frames_file import Feed
from mvtool.bench.plan import PLAN_FILE, InputFile, Plan
from mvtool.ports import PortManifest


def place(
    space: Workspace,
    artifact: Path,
    ports: PortManifest,
    runner: Runner,
    fed: Feed,
    plan_of: Callable[[tuple[InputFile, ...], str, str | None], Plan],
) -> Plan:
    """Write frames, plan and reset values, and put them with the runner, its library and the artifact.

    Args:
        space: Empty workspace on a device.
        artifact: File to execute.
        ports: Its port manifest.
        runner: Of the device.
        fed: Frames.
        plan_of: Makes the plan of the input files, the artifact's name and the library's name in the workspace.

    Raises:
        DeviceError: The device is gone or full.
    """
    with tempfile.TemporaryDirectory(prefix="mvtool-bench-") as name:
        folder = Path(name)
        library = None if runner.library is None else runner.library.name
        plan = plan_of(fed.write(ports, folder), f"model{artifact.suffix}", library)
        for file, content in {PLAN_FILE: plan.to_text().encode(), **plan.reset_files()}.items():
            (folder / file).write_bytes(content)
        space.put(runner.program, runner.program.name, executable=True)
        for path in (*runner.beside, *([] if runner.library is None else [runner.library])):
            space.put(path, path.name)
        space.put(artifact, plan.model)
        for path in sorted(folder.iterdir()):
            space.put(path, path.name)
    return plan
