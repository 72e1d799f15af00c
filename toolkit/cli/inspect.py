"""`mvtool inspect`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from mvtool import operators, runtimes
from mvtool.build import MANIFEST_FILE, ArtifactEntry, Build
from mvtool.cli import console
from mvtool.cli.build_view import artifacts_table, delegation, print_rewrites, print_verification, title
from mvtool.cli.options import json_option
from mvtool.errors import ManifestError, UsageError
from mvtool.files import size_of
from mvtool.ports import Binding, PortManifest, Runtime, TensorPort
from mvtool.running import UNTRAINED


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@json_option()
def command(path: Path, as_json: bool) -> None:
    """Show the ports and states of an artifact or a build.

    PATH is a build folder, or one .tflite, .mlpackage or .pte with an embedded manifest.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist. Give a build folder or an artifact.")
    console.show_warnings(verbose=False)
    to = console.stdout()
    if path.is_dir() and (path / MANIFEST_FILE).is_file() and path.suffix != ".mlpackage":
        build = Build.load(path)
        if as_json:
            console.print_json(json.loads(build.manifest.to_json()))
        else:
            _print_build(build, to)
        return
    found = read(path)
    if as_json:
        console.print_json(found.record())
    else:
        _print_file(found, to)


@dataclass(frozen=True)
class Inspected:
    """What is known of one artifact.

    Attributes:
        path: The file.
        manifest: Its embedded port manifest.
        operators: Operator to number of uses.
        entry: Its entry in the build manifest beside it, if there is one.
    """

    path: Path
    manifest: PortManifest
    operators: dict[str, int]
    entry: ArtifactEntry | None

    @property
    def state_bytes(self) -> int:
        """Size of all state ports together, on one side of the loop."""
        return sum(binding.input.size_bytes for binding in self.manifest.states)

    def record(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "file": self.path.name,
            "bytes": size_of(self.path),
            "state_bytes": self.state_bytes,
            "operators": self.operators,
            "delegation": dict(self.entry.delegation) if self.entry else {},
            "rewrites": [rewrite.model_dump(mode="json") for rewrite in self.entry.rewrites] if self.entry else [],
            "ports": json.loads(self.manifest.to_json()),
        }


def read(path: Path) -> Inspected:
    """Read one artifact.

    Raises:
        UsageError: The suffix is of no runtime.
        ManifestError: It holds no valid port manifest.
        RuntimeLoadError: It is damaged.
    """
    runtime = runtimes.runtime_of(path)
    module = runtimes.module_of(runtime)
    module.check_complete(path)
    manifest = module.read_manifest(path)
    return Inspected(path, manifest, operators.count(path, Runtime(runtime)), _entry_beside(path))


def _entry_beside(path: Path) -> ArtifactEntry | None:
    try:
        build = Build.load(path.parent)
    except ManifestError:
        return None  # an artifact that was copied out of its build is still worth showing
    return next((entry for entry in build.manifest.artifacts if build.path(entry).resolve() == path.resolve()), None)


def _print_build(build: Build, to: Console) -> None:
    manifest = build.manifest
    to.print(title(build))
    to.print(artifacts_table(build))
    files = [" · ".join(filter(None, (w.file_name, w.naming))) for w in manifest.model.weights]
    origin = UNTRAINED if manifest.model.untrained else ", ".join(files) or "weights of the module"
    to.print(Text(f"\nsource {manifest.model.source} · {origin}"))
    if (found := manifest.calibration) is not None:
        to.print(Text(f"int8 calibrated on {found.origin}: {found.clips} clip(s), {found.steps} steps"))
        for note in found.notes:
            to.print(Text(note, style="yellow"))
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    to.print(Text(f"written by {tools}", style="dim"))
    to.print()
    print_rewrites(manifest, to)
    to.print()
    if manifest.verification is None:
        to.print(Text("not verified yet; run `mvtool verify` on this folder", style="yellow"))
    else:
        print_verification(manifest.verification, to)


def _print_file(found: Inspected, to: Console) -> None:
    manifest = found.manifest
    size = console.size(size_of(found.path))
    to.print(
        Text(f"{found.path.name} · {manifest.model} · {manifest.runtime} {manifest.precision} · {size}", style="bold")
    )
    if manifest.untrained:
        to.print(Text(UNTRAINED, style="red"))
    rate = f"{manifest.frame_rate:g} frames/s" if manifest.frame_rate else "any frame rate"
    to.print(Text(f"{manifest.frames_per_step} frame(s) per step · {rate} · labels {manifest.labels or '-'}"))
    if manifest.preprocessing is not None:
        to.print(Text("preprocessing " + ", ".join(f"{k} {v}" for k, v in manifest.preprocessing)))
    to.print(_ports_table(manifest))
    if manifest.states:
        to.print(_states_table(manifest.states))
        to.print(Text(f"{len(manifest.states)} states, {console.size(found.state_bytes)} in and out of every step"))
    to.print(Text("operators: " + ", ".join(f"{name} {n}" for name, n in found.operators.items())))
    if found.entry is not None and found.entry.delegation:
        to.print(Text(f"delegation: {delegation(found.entry)}"))


def _ports_table(manifest: PortManifest) -> Any:
    listing = console.table("port", "position", "shape", "layout", "type", "scale", "zero point", "meaning")
    for port in manifest.inputs:
        kind = "image, input" if port.image else "input"
        console.add_row(listing, port.name, f"in {port.position}", *_tensor(port), kind)
    for output in manifest.outputs:
        console.add_row(listing, output.name, f"out {output.position}", *_tensor(output), output.meaning or "output")
    return listing


def _states_table(states: tuple[Binding, ...]) -> Any:
    columns = ("state", "form", "in", "out", "shape", "layout", "type", "scale", "zero point", "reset")
    listing = console.table(*columns)
    for binding in states:
        ways = _ways(binding.inputs), _ways(binding.outputs)
        reset = f"0x{binding.reset.element_hex}" if binding.reset.element_hex else "own bytes"
        console.add_row(listing, binding.state, binding.form, *ways, *_tensor(binding.inputs[0]), reset)
    return listing


def _ways(ports: tuple[TensorPort, ...]) -> str:
    """Position and name; of several ports, which have neighbouring positions, the first and the last."""
    ends = ports if len(ports) == 1 else (ports[0], ports[-1])
    return " to ".join(f"{port.position} {port.name}" for port in ends)


def _tensor(port: TensorPort) -> tuple[str, str, str, str, str]:
    """Shape, layout, type, scale and zero point as text."""
    shape = "x".join(map(str, port.shape)) or "scalar"
    grid = port.quantization or port.grid
    scale, zero = (f"{grid.scale:.6g}", str(grid.zero_point)) if grid else ("-", "-")
    return shape, port.layout or "-", port.dtype, scale, zero
