"""Google's `benchmark_model`, run beside mvtool's own runner as a cross-check.

It may be the tool of the Interpreter API (TensorFlow Lite) or that of the CompiledModel API (LiteRT); both take
the flags below. Neither is shipped with mvtool. It knows no state: for a streaming model its latency is that of one
call on random inputs. See `mvtool.bench.cross_check`.
"""

from __future__ import annotations

from pathlib import Path

from mvtool.android_bench.benchmark_model_result import parse_result
from mvtool.android_bench.benchmark_model_text import parse_text
from mvtool.bench.cross_check import CrossCheck
from mvtool.bench.device import Workspace
from mvtool.errors import RunnerError

PROGRAM = "benchmark_model"
RESULT = "benchmark_model.pb"


def parse(output: str | bytes) -> CrossCheck:
    """Parse a text of any generation, or the bytes of a result file.

    Raises:
        RunnerError: It is neither, or not complete.
    """
    return parse_text(output) if isinstance(output, str) else parse_result(output)


def command(
    program: str,
    model: str,
    threads: int = 1,
    runs: int = 50,
    *,
    warmup_runs: int = 1,
    min_seconds: float = 1.0,
    max_seconds: float = 150.0,
    peak_memory: bool = False,
    result: str | None = RESULT,
) -> list[str]:
    """Words of the command line.

    A build that does not know a flag warns of it and goes on; `CrossCheck.unconsumed_flags` names it.

    Args:
        program: Path of the tool where it runs.
        model: Path of the `.tflite` file there.
        threads: Threads of the runtime; without it the tool chooses.
        runs: Measured invokes, at least; the tool goes on until `min_seconds` have passed as well.
        warmup_runs: Invokes before, at least, and at least for half a second.
        min_seconds: Seconds of the measured invokes, at least.
        max_seconds: End of the warm-up and of the measured invokes in any case.
        peak_memory: Sample the peak in a second thread, which may disturb the latencies.
        result: File for the result as a protobuf; None for none.
    """
    words = [
        program,
        f"--graph={model}",
        f"--num_threads={threads}",
        f"--num_runs={runs}",
        f"--warmup_runs={warmup_runs}",
        f"--min_secs={min_seconds:g}",
        f"--max_secs={max_seconds:g}",
    ]
    if peak_memory:
        words.append("--report_peak_memory_footprint=true")
    if result is not None:
        words.append(f"--result_file_path={result}")
    return words


def run_in(
    workspace: Workspace,
    program: Path,
    model: Path,
    threads: int = 1,
    runs: int = 50,
    *,
    beside: tuple[Path, ...] = (),
    peak_memory: bool = False,
    max_seconds: float = 150.0,
) -> CrossCheck:
    """Run the tool once in a folder of a device.

    Args:
        workspace: The folder.
        program: The tool, built for the device.
        model: The `.tflite` file.
        threads: Threads of the runtime.
        runs: Measured invokes, at least, and at least for a second.
        beside: Libraries that the tool loads, for example `libLiteRt.so`.
        peak_memory: Sample the peak in a second thread, which may disturb the latencies.
        max_seconds: End of each of the two series in any case; the process has a minute more.

    Raises:
        RunnerError: The tool failed, or gave neither a result file nor a text that can be used.
        DeviceError: The device is gone.
    """
    workspace.put(program, PROGRAM, executable=True)
    workspace.put(model, model.name)
    for library in beside:
        workspace.put(library, library.name)
    words = command(PROGRAM, model.name, threads, runs, peak_memory=peak_memory, max_seconds=max_seconds)
    # A result of an earlier run in this folder must not pass for one of a build that does not write it.
    workspace.remove(RESULT)
    environment = {"LD_LIBRARY_PATH": "."} if beside else {}
    text = workspace.execute(words[0], tuple(words[1:]), environment, timeout_s=2 * max_seconds + 60)
    return _best(workspace, text).model_copy(update={"threads": threads})


def _best(workspace: Workspace, text: str) -> CrossCheck:
    """Figures of the result file; the text's where there is no such file, since older builds write none."""
    try:
        data = workspace.get(RESULT)
    except RunnerError:
        return parse_text(text)
    figures = parse_result(data)
    try:
        flags = parse_text(text).unconsumed_flags
    except RunnerError:
        # LiteRT's tool logs to logcat on Android, so the text may hold nothing.
        flags = None
    return figures.model_copy(update={"unconsumed_flags": flags})
