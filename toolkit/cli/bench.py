"""`mvtool bench`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mvtool.cli import console
from mvtool.cli.options import PRECISIONS, json_option, listed_option
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.bench.profiles import Request
    from mvtool.bench.record import Record

RUNTIMES = ("tflite", "executorch")


@click.command("bench")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    default=("host",),
    show_default=True,
    metavar="host|android[:SERIAL]",
    help="Where; give it several times for several phones at once.",
)
@listed_option("--runtime", "runtimes", known=RUNTIMES, help="Artifacts of a build; all if not given.")
@listed_option("--precision", "precisions", known=PRECISIONS, help="Artifacts of a build; all if not given.")
@click.option("--quick", is_flag=True, help="A glance: three launches of a second.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="One launch of so long, to see what heat does."
)
@click.option("--launches", type=click.IntRange(min=1), help="Instead of the profile's number.")
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True), help="Feed frames at this pace instead of flat out."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of the runtime.")
@click.option("--affinity", metavar="MASK", help="Pin to processors: hexadecimal mask, as for taskset.")
@click.option("--max-temperature", type=float, metavar="CELSIUS", help="Wait before each launch until it is no warmer.")
@click.option("--interleave", is_flag=True, help="Launches of all artifacts take turns, for a fair comparison.")
@click.option("--weight-cache", is_flag=True, help="TFLite: keep packed weights in a file, as docs/memory.md advises.")
@click.option("--video", help="Video that the frames come from; the bundled clip if not given.")
@click.option("--no-roofline", is_flag=True, help="Do not measure the peaks of the device.")
@click.option("--benchmark-model", type=click.Path(path_type=Path), help="Google's benchmark_model, as a cross-check.")
@click.option("--runner", type=click.Path(path_type=Path), help="Compiled runner for the phone.")
@click.option("--lib", type=click.Path(path_type=Path), help="Runtime library for the phone: .so, .aar or .zip.")
@click.option("--ndk", type=click.Path(path_type=Path), help="Android NDK to compile the runner with.")
@click.option("--adb", type=click.Path(path_type=Path), help="The adb program, where it is not on the PATH.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Words for the record, for example the commit.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bench"), show_default=True, help="Folder for records."
)
@click.option("--resume", is_flag=True, help="Go on with a batch in --out that was interrupted.")
@click.option("--build-runner", is_flag=True, help="Compile the native runner, and print where it is.")
@json_option()
def command(paths: tuple[Path, ...], build_runner: bool, as_json: bool, **given: Any) -> None:
    """Measure latency and memory on this machine or on phones.

    PATHS are build folders or single files. Frames of a video are fed in turn, the state goes from call to call, and what the
    device computes is compared with this machine before any latency is believed. Writes one record per artifact;
    `mvtool report` and `mvtool compare` read them.
    """
    console.show_warnings(verbose=False)
    if build_runner:
        _build_runner(given["runtimes"], given["ndk"], given["lib"], as_json)
        return
    if not paths:
        raise UsageError("Nothing to measure was named; give a build folder, or --build-runner to compile the runner.")
    _measure(paths, given, as_json)


def _measure(paths: Sequence[Path], given: dict[str, Any], as_json: bool) -> None:
    from mvtool.android_bench.measure import measure
    from mvtool.android_bench.open_device import Tools
    from mvtool.bench.record import Record
    from mvtool.bench.subjects import subjects

    found = [subject for path in paths for subject in subjects(path, given["runtimes"], given["precisions"])]
    tools = Tools(given["runner"], given["lib"], given["ndk"], given["adb"], given["benchmark_model"])
    with launch_bars() as tell:
        outcome = measure(
            found,
            request_of(given),
            devices=given["devices"],
            out=given["out"],
            source=given["video"],
            tools=tools,
            resume=given["resume"],
            tell=tell,
        )
    records = [Record.load(path) for path in outcome.records]
    if as_json:
        console.print_json([_figures(path, record) for path, record in zip(outcome.records, records, strict=True)])
    else:
        _print(outcome.records, records)
    outcome.raise_failed()


def request_of(given: dict[str, Any]) -> Request:
    """The request that the options of the command line make.

    Raises:
        UsageError: They contradict each other, or a tag is not KEY=VALUE.
    """
    from mvtool.bench.profiles import Request

    tags = []
    for tag in given["tags"]:
        key, equals, value = tag.partition("=")
        if not (key and equals):
            raise UsageError(f"--tag got {tag!r}; expected KEY=VALUE, for example commit=1a2b3c.")
        tags.append((key, value))
    return Request(
        quick=given["quick"],
        minutes=given["minutes"],
        launches=given["launches"],
        fps=given["fps"],
        threads=given["threads"],
        affinity=given["affinity"],
        max_temperature_c=given["max_temperature"],
        interleave=given["interleave"],
        roofline=not given["no_roofline"],
        weight_cache=given["weight_cache"],
        tags=tuple(tags),
    )


@contextmanager
def launch_bars() -> Iterator[Callable[[str, str, int, int], None]]:
    """One bar per device on a terminal; elsewhere one line whenever something new begins."""
    to = console.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    said: dict[str, str] = {}
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as bars:

        def tell(device: str, what: str, done: int, total: int) -> None:
            if device not in tasks:
                tasks[device] = bars.add_task(device, total=None)
            bars.update(tasks[device], description=f"{device}: {what}", completed=done, total=total or None)
            if not to.is_terminal and said.get(device) != what:
                click.echo(f"{device}: {what}", err=True)
            said[device] = what

        yield tell


def _figures(path: Path, record: Record) -> dict[str, Any]:
    from mvtool.bench.statistics import summarise, to_json

    return {
        "record": str(path),
        "model": record.model.name,
        "runtime": record.artifact.runtime,
        "precision": record.artifact.precision,
        "device": record.device.name,
        "loopback": record.device.loopback,
        "emulated": record.device.emulated,
        **to_json(summarise(record)),
    }


def _print(paths: Sequence[Path], records: Sequence[Record]) -> None:
    from mvtool.bench.statistics import summarise

    to = console.stdout()
    right = ("median ms", "95 % interval", "p90", "p99", "first", "load", "frames/s", "peak MiB", "of peak")
    listing = console.table("artifact", "device", "delegate", *right, "stable", right=right)
    summaries = [summarise(record) for record in records]
    for record, summary in zip(records, summaries, strict=True):
        median, peak = summary.median_ms, summary.peak_memory_bytes
        bound = "≥ " if summary.peak_memory_kind == "lower bound" else ""
        console.add_row(
            listing,
            f"{record.model.name} {record.artifact.precision} {record.artifact.runtime}",
            record.device.name + (" (loopback)" if record.device.loopback else ""),
            record.engine.delegate,
            f"{median.value:.3f}",
            "one launch" if len(record.launches) == 1 else f"{median.low:.3f}-{median.high:.3f}",
            f"{summary.p90_ms:.3f}",
            f"{summary.p99_ms:.3f}",
            f"{summary.first_ms:.2f}",
            f"{summary.load_ms:.1f}",
            f"{summary.frames_per_second:.1f}",
            "-" if peak is None else f"{bound}{peak / 2**20:.1f}",
            "-" if summary.roofline_share is None else f"{summary.roofline_share:.0%}",
            "yes" if summary.stability.stable else "no",
        )
    to.print(listing)
    for record, summary in zip(records, summaries, strict=True):
        for line in (*summary.stability.reasons, *summary.stability.hints, *record.notes):
            to.print(f"{record.artifact.file}: {line}", markup=False)
    for path in paths:
        to.print(f"Record: {path}", markup=False)
    for base, new in _in_turns(paths, records):
        to.print(f"Compare: mvtool compare {base} {new}", markup=False)


def _in_turns(paths: Sequence[Path], records: Sequence[Record]) -> list[tuple[Path, Path]]:
    """Records of one session of the same runtime and precision: the first is what the others are compared with."""
    first: dict[tuple[str, ...], Path] = {}
    pairs = []
    for path, record in zip(paths, records, strict=True):
        key = (record.session, record.model.name, record.artifact.runtime, record.artifact.precision)
        if key in first:
            pairs.append((first[key], path))
        first.setdefault(key, path)
    return pairs


def _build_runner(runtimes: Sequence[str] | None, ndk: Path | None, library: Path | None, as_json: bool) -> None:
    """Compile the runners for this machine, or with an NDK for 64-bit ARM phones.

    Raises:
        UsageError: What was asked for needs a library that was not given.
    """
    from mvtool.android_bench.runners import build_runner
    from mvtool.android_bench.toolchain import Target
    from mvtool.ports import Runtime

    target = Target.HOST if ndk is None else Target.ANDROID_ARM64
    if runtimes and "executorch" in runtimes and ndk is not None and library is None:
        raise UsageError(
            "The runner of .pte files for a phone is linked with ExecuTorch's library; give libexecutorch.so with --lib."
        )
    wanted = runtimes or _possible(ndk, library)
    built = {name: str(build_runner(Runtime(name), target, ndk, library)) for name in wanted}
    if as_json:
        console.print_json({"target": target.value, "runners": built})
        return
    for name, path in built.items():
        click.echo(f"{name} ({target.value}): {path}")


def _possible(ndk: Path | None, library: Path | None) -> tuple[str, ...]:
    """All runtimes whose runner can be linked with what is installed or given."""
    linkable = library is not None if ndk is not None else importlib.util.find_spec("executorch") is not None
    return RUNTIMES if linkable else ("tflite",)
