"""Why whole-graph int8 fails on streams: ai-edge-quantizer's static recipe beside mvtool's int8, on the same clips.

    python benchmarks/stock_int8.py build/movinet_nano_motion --dataset motion:split=test,clips=1000 [--json FILE] [--plot FILE]

The peer is `static_wi8_ai8` of ai-edge-quantizer, given the build's own fp32 `.tflite` and the same calibration clips, with the states rolled
through the float model: once with its defaults, once with true minima and maxima in place of its moving average. Its files have int8 at every
port; a state that leaves with another scale than it enters is converted between two calls, as an app would have to do. For every
frame the program gives top-1, and the signal to noise ratio of the logits beside fp32 over all clips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, quantizer, recipe
from ai_edge_quantizer.utils import qsv_utils
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mvtool import runtimes
from mvtool.build import Build
from mvtool.converters.program_io import load_program
from mvtool.datasets.spec import parse
from mvtool.evaluation.answers import prepared
from mvtool.evaluation.statistics import share
from mvtool.evaluation.task import task_of
from mvtool.plotting import COLOURS
from mvtool.ports import AnyArray, PortManifest, Precision, Runtime
from mvtool.quantization.sources import load_calibration
from mvtool.running import image_port, scores_port, to_logical
from mvtool.runtimes.base import PortSession
from mvtool.session import Session
from mvtool.verification.bounds import snr_db

FP32 = (Runtime.TFLITE, Precision.FP32)
BASE = "fp32"


class Stock:
    """A file of the peer, called with real numbers in the order of the fp32 ports."""

    engine = "TensorFlow Lite"

    def __init__(self, model: bytes) -> None:
        """Load the file. Its signature names tensors that the peer has replaced, so it is called by the positions of its graph."""
        self._interpreter = Interpreter(model_content=model, num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs, self._outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """One step."""
        for detail, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], _stored(value, detail))
        self._interpreter.invoke()
        return [_real(self._interpreter.get_tensor(detail["index"]), detail) for detail in self._outputs]


def _stored(value: AnyArray, detail: Mapping[str, Any]) -> AnyArray:
    scale, zero = detail["quantization"]
    return np.clip(np.rint(value / scale) + zero, -128, 127).astype(np.int8) if scale else value


def _real(value: AnyArray, detail: Mapping[str, Any]) -> AnyArray:
    scale, zero = detail["quantization"]
    return ((value.astype(np.float32) - zero) * np.float32(scale)).astype(np.float32) if scale else value.copy()


def samples(build: Build, manifest: PortManifest) -> list[dict[str, AnyArray]]:
    """Port arrays of every step of the build's calibration clips, by name, states rolled through the fp32 file."""
    program = load_program(build.path(build.manifest.program))
    origin = build.manifest.options.get("calibration")
    clips = load_calibration(None if origin is None else Path(str(origin)), program.info, program.inputs)
    runner = Interpreter(str(build.path(build.artifact(*FP32))), num_threads=1).get_signature_runner()
    found = []
    for clip in clips.clips:
        states = {s.input.name: s.reset.array(s.input) for s in manifest.states}
        for step in clip:
            frames = {port.name: port.encode(value) for port, value in zip(manifest.inputs, step, strict=True)}
            found.append({**frames, **states})
            given = runner(**frames, **states)
            states = {s.input.name: given[s.output.name].copy() for s in manifest.states}
    return found


def peers(build: Build, manifest: PortManifest) -> Iterator[tuple[str, Session]]:
    """The peer's int8 of the build's fp32 file, with both kinds of ranges."""
    path = build.path(build.artifact(*FP32))
    data = {"serving_default": samples(build, manifest)}
    peer = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    ranges = peer.calibrate(data, num_threads=1)
    yield "ai-edge-quantizer", _session(peer.quantize(ranges).quantized_model, manifest)
    counted = calibrator.Calibrator(path.read_bytes(), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    counted.calibrate(data, peer._recipe_manager)
    yield "ai-edge-quantizer, true ranges", _session(peer.quantize(counted.get_model_qsvs()).quantized_model, manifest)


def _session(model: bytes, manifest: PortManifest) -> Session:
    return PortSession(manifest, Stock(bytes(model)))


def logits(session: Session, frames: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Scores `(frames, classes)` of a clip from reset."""
    port, output = image_port(session.manifest), scores_port(session.manifest)
    session.reset()
    seen = (to_logical(frame[None], port) for frame in frames)
    return np.stack([session.step(one)[output.name].reshape(-1).astype(np.float64) for one in seen])


def follow(contestants: Mapping[str, Session], dataset: str) -> dict[str, dict[str, list[float]]]:
    """Top-1 and signal to noise ratio after every frame."""
    base = contestants[BASE]
    task, videos = task_of(base.manifest, [], dataset), parse(dataset)
    scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in contestants}
    labels = []
    for index in range(task.clips):
        frames = prepared(base, videos.frames_of(index, task.frame_rate))
        labels.append(task.classes[videos.label(index)])
        for name, session in contestants.items():
            scores[name].append(logits(session, frames))
    right = np.array(labels)[:, None]
    found = {}
    for name, rows in scores.items():
        table, expected = np.stack(rows), np.stack(scores[BASE])
        shares = (table.argmax(2) == right).mean(0)
        ratios = [snr_db(table[:, step], expected[:, step]) for step in range(table.shape[1])]
        found[name] = {"top1": shares.tolist(), "snr_db": ratios}
    return found


def plot(found: Mapping[str, Mapping[str, Sequence[float]]], title: str, target: Path) -> None:
    """Top-1, and the signal to noise ratio, against the number of the frame."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    for colour, (name, values) in zip(COLOURS, found.items(), strict=False):
        steps = range(1, len(values["top1"]) + 1)
        upper.plot(
            steps, [100 * v for v in values["top1"]], color=colour, label=f"{name} ({100 * values['top1'][-1]:.1f} %)"
        )
        if name != BASE:
            lower.plot(steps, values["snr_db"], color=colour, label=name)
    upper.set_ylabel("top-1 (%)")
    upper.set_ylim(0, 100)
    lower.set_ylabel("signal to noise beside fp32 (dB)")
    lower.set_xlabel("frame of the clip")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=110)


def main() -> None:
    """Quantize, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--dataset", default="motion:split=test,clips=1000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    build = Build.load(arguments.build)
    fp32 = runtimes.open_file(build.path(build.artifact(*FP32)))
    ours = runtimes.open_file(build.path(build.artifact(Runtime.TFLITE, Precision.INT8)))
    contestants: dict[str, Session] = {BASE: fp32, "mvtool int8": ours, **dict(peers(build, fp32.manifest))}
    found = follow(contestants, arguments.dataset)
    clips = len(parse(arguments.dataset))
    for name, values in found.items():
        end = share(round(values["top1"][-1] * clips), clips)
        worst = min(values["snr_db"])
        told = "" if name == BASE else f", signal to noise {values['snr_db'][0]:.1f} dB at first, {worst:.1f} at worst"
        print(f"{name}: {100 * end.value:.2f} % ({100 * end.low:.2f} to {100 * end.high:.2f}) at the end{told}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"dataset": arguments.dataset, "contestants": found}, indent=1) + "\n")
    if arguments.plot:
        plot(found, f"{build.manifest.model.name}: {clips} clips of {arguments.dataset}", arguments.plot)


if __name__ == "__main__":
    main()
