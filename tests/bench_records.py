"""Valid records of benchmarks with drawn samples, for the tests of everything that reads records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvtool.bench.record import (
    ArtifactFacts,
    Correctness,
    DeviceFacts,
    DeviceKind,
    EngineFacts,
    Launch,
    MemoryMark,
    ModelFacts,
    Moment,
    Options,
    Place,
    PortCheck,
    Reading,
    Record,
    Roofline,
    Samples,
)
from mvtool.ports import Precision, Runtime

MIB = 2**20
PAGE_BYTES = 4096

HOST = DeviceFacts(
    kind=DeviceKind.HOST,
    serial="bench-1",
    name="Intel Xeon E-2288G",
    model="Intel(R) Xeon(R) E-2288G CPU @ 3.70GHz",
    abi="x86_64",
    cores=8,
    memory_bytes=32 * 2**30,
    os="Linux",
    os_version="Debian GNU/Linux 12",
    build="6.1.0-18-amd64",
)
PHONE = DeviceFacts(
    kind=DeviceKind.ANDROID,
    serial="3A091FDJH001AB",
    name="Google Pixel 8",
    manufacturer="Google",
    model="Pixel 8",
    soc="Tensor G3",
    abi="arm64-v8a",
    cores=9,
    memory_bytes=8 * 2**30,
    os="Android",
    os_version="14 (API 34)",
    build="google/shiba/shiba:14/AP1A.240405.002/11480754:user/release-keys",
)
LOOPBACK = PHONE.model_copy(update={"name": "loopback phone", "serial": "127.0.0.1:5555", "loopback": True})


@dataclass(frozen=True)
class Noise:
    """What spoils a measurement; deviations are parts of the latency.

    Attributes:
        launch_std: Of the level of a launch.
        slow_share: Probability that a launch is slow as a whole,
        slow_by: by a part drawn evenly from this range.
        drift_std: Of the drift within a launch, whose steps are autocorrelated (first order)
        drift_correlation: with this correlation from one invoke to the next.
        jitter_std: Of an invoke by itself.
        spike_share: Probability that an invoke is a spike,
        spike_scale: which adds this part times a Pareto variable of exponent 1.5 (infinite variance).
        session_std: Of the level of a session, which all launches of interleaved records share.
        slot_std: Of the level of a place in the order of launches, which interleaved records share.
        memory_std: Of the peak memory of a launch, as a part of it.
        memory_step_share: Probability that a launch needed a step more, such as an arena that grew once more,
        memory_step_by: by a part drawn evenly from this range.
    """

    launch_std: float = 0.0
    slow_share: float = 0.0
    slow_by: tuple[float, float] = (0.05, 0.10)
    drift_std: float = 0.0
    drift_correlation: float = 0.98
    jitter_std: float = 0.0
    spike_share: float = 0.0
    spike_scale: float = 0.3
    session_std: float = 0.0
    slot_std: float = 0.0
    memory_std: float = 0.0
    memory_step_share: float = 0.0
    memory_step_by: tuple[float, float] = (0.05, 0.25)


SILENT = Noise()
CALM = Noise(launch_std=0.005, drift_std=0.003, jitter_std=0.01, spike_share=0.005, spike_scale=0.1)
NOISY = Noise(
    launch_std=0.02,
    slow_share=0.08,
    drift_std=0.01,
    jitter_std=0.02,
    spike_share=0.02,
    memory_std=0.01,
    memory_step_share=0.08,
)
NOISIER = replace(NOISY, launch_std=0.03, drift_std=0.015, jitter_std=0.03, memory_std=0.02)
NOISIEST = replace(NOISIER, launch_std=0.04)
HOPELESS = Noise(launch_std=0.15, slow_share=0.2, slow_by=(0.2, 0.6), drift_std=0.05, jitter_std=0.05, spike_share=0.05)


def latencies(
    noise: Noise,
    *,
    launches: int = 6,
    invokes: int = 171,
    base_ms: float = 10.0,
    trials: int = 1,
    seed: int = 0,
    shared_seed: int | None = None,
) -> NDArray[np.float64]:
    """Latencies in milliseconds, `(trials, launches, invokes)`.

    Args:
        noise: How they scatter.
        launches: Launches of a trial.
        invokes: Timed invokes of a launch.
        base_ms: Latency without noise.
        trials: Number of independent measurements.
        seed: Of everything that no other measurement shares.
        shared_seed: Of the levels of session and places; two arrays with the same one are interleaved.
    """
    draw = np.random.default_rng(seed)
    shared = np.random.default_rng(seed + 1_000_003 if shared_seed is None else shared_seed)
    level = draw.normal(0, noise.launch_std, (trials, launches, 1))
    level += np.log1p(draw.uniform(*noise.slow_by, level.shape)) * (draw.random(level.shape) < noise.slow_share)
    level += shared.normal(0, noise.session_std, (trials, 1, 1))
    level += shared.normal(0, noise.slot_std, level.shape)
    drift = _autocorrelated(draw, (trials, launches, invokes), noise.drift_correlation) * noise.drift_std
    jitter = draw.normal(0, noise.jitter_std, drift.shape)
    spikes = (draw.random(drift.shape) < noise.spike_share) * draw.pareto(1.5, drift.shape) * noise.spike_scale
    return base_ms * np.exp(level + drift + jitter) * (1 + spikes)


def peaks(
    noise: Noise, *, launches: int = 6, peak_bytes: int = 30 * MIB, trials: int = 1, seed: int = 0
) -> NDArray[np.int64]:
    """Peak memory of each launch above its baseline in whole pages, in bytes, `(trials, launches)`."""
    draw = np.random.default_rng(seed + 2_000_003)
    level = draw.normal(0, noise.memory_std, (trials, launches))
    level += np.log1p(draw.uniform(*noise.memory_step_by, level.shape)) * (
        draw.random(level.shape) < noise.memory_step_share
    )
    pages: NDArray[np.int64] = np.rint(peak_bytes * np.exp(level) / PAGE_BYTES).astype(np.int64)
    return pages * PAGE_BYTES


def _autocorrelated(draw: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> NDArray[np.float64]:
    """A stationary process of first order and deviation 1 along the last axis."""
    out = draw.normal(0, 1, shape)
    innovation = (1 - correlation**2) ** 0.5
    for i in range(1, shape[-1]):
        out[..., i] = correlation * out[..., i - 1] + innovation * out[..., i]
    return out


def record(
    *,
    base_ms: float = 10.0,
    launches: int = 6,
    invokes: int = 171,
    noise: Noise = CALM,
    seed: int = 0,
    device: DeviceFacts = HOST,
    model: str = "movinet_a0_stream",
    runtime: Runtime = Runtime.TFLITE,
    precision: Precision = Precision.FP32,
    profile: Literal["default", "quick", "sustained"] = "default",
    fps: float | None = None,
    frames_per_call: int = 1,
    threads: int = 1,
    artifact: str = "a",
    artifact_bytes: int = 12 * MIB,
    peak_bytes: int = 30 * MIB,
    swap_bytes: int = 0,
    session: str | None = None,
    readings: tuple[Reading, ...] = (),
    roofline: Roofline | None = None,
) -> Record:
    """A record whose latencies are drawn.

    Args:
        base_ms: Latency without noise.
        launches: Number of launches.
        invokes: Timed invokes of each.
        noise: How latencies scatter.
        seed: Of the samples.
        device: Where; `HOST`, `PHONE`, `LOOPBACK` or others.
        model: Name of the model.
        runtime: Runtime of the artifact.
        precision: Precision of the artifact.
        profile: Profile of the run.
        fps: Frames per second that the run was paced at.
        frames_per_call: Frames that one call takes.
        threads: Threads of the runtime.
        artifact: Any text; records with equal ones measured the same file.
        artifact_bytes: Size of the file.
        peak_bytes: Peak memory above the baseline, without noise.
        swap_bytes: Swapped out at the end.
        session: Word for a session whose launches took turns; records with equal ones were interleaved.
        readings: Of temperature and battery; two ordinary ones where none are given.
        roofline: Peaks of the device.
    """
    shared = None if session is None else int(_sha256(session)[:8], 16)
    (drawn,) = latencies(noise, launches=launches, invokes=invokes, base_ms=base_ms, seed=seed, shared_seed=shared)
    pace_ms = None if fps is None else 1e3 * frames_per_call / fps
    return record_of(
        drawn,
        pace_ms=pace_ms,
        peak_bytes=peaks(noise, launches=launches, peak_bytes=peak_bytes, seed=seed)[0].tolist(),
        swap_bytes=swap_bytes,
        id=_sha256(
            f"{seed} {artifact} {model} {base_ms} {runtime} {precision} {fps} {threads} {profile} {device.serial}"
        )[:32],
        session=_sha256(session or f"session {seed} {artifact}")[:32],
        interleaved=session is not None,
        model=ModelFacts(name=model, frames_per_call=frames_per_call, frame_rate=5.0, macs=40_000_000),
        artifact=ArtifactFacts(
            file=f"{model}_{precision}.{'pte' if runtime == Runtime.EXECUTORCH else 'tflite'}",
            runtime=runtime,
            precision=precision,
            bytes=artifact_bytes,
            sha256=_sha256(artifact),
            state_bytes=MIB,
            port_bytes=MIB // 2,
        ),
        device=device,
        engine=_engine(runtime, threads),
        options=Options(
            profile=profile,
            launches=launches,
            fps=fps,
            min_invokes=invokes,
            min_seconds=0.0,
            warmup_invokes=3,
            warmup_seconds=0.0,
            video="walking.mp4",
            frames=50,
        ),
        readings=readings or (_reading(Moment.BEFORE, device, 0.0), _reading(Moment.AFTER, device, 60.0)),
        roofline=roofline,
    )


def record_of(
    latency_ms: NDArray[np.float64],
    pace_ms: float | None = None,
    peak_bytes: Sequence[int] = (),
    swap_bytes: int = 0,
    **facts: object,
) -> Record:
    """A record of given latencies `(launches, invokes)`; what `facts` lacks is as in `record`.

    Args:
        latency_ms: Latency of each invoke.
        pace_ms: Period of a paced run.
        peak_bytes: Peak memory of each launch above the baseline; 0 where none are given.
        swap_bytes: Memory swapped out at the end.
        facts: Fields of `Record`.
    """
    if not facts:
        plain = record(launches=1, invokes=1)
        facts = {name: getattr(plain, name) for name in type(plain).model_fields if name != "launches"}
    if "correctness" not in facts:
        check = PortCheck(port="logits", error=2e-7, tolerance=1e-4)
        facts["correctness"] = Correctness(steps=8, reference="LiteRT 2.3.0 on x86_64", ports=(check,))
    facts.setdefault("created", "2026-03-01T12:00:00Z")
    facts.setdefault("tools", {"mvtool": "0.4.0"})
    launches = [
        _launch(row, 10.0 * i, pace_ms, peak, swap_bytes)
        for i, (row, peak) in enumerate(zip(latency_ms, peak_bytes or [0] * len(latency_ms), strict=True))
    ]
    facts.pop("schema_id", None)
    return Record(launches=tuple(launches), **facts)


def _launch(latency_ms: NDArray[np.float64], started_s: float, pace_ms: float | None, peak: int, swap: int) -> Launch:
    inference = np.rint(np.asarray(latency_ms) * 1e6).astype(np.int64)
    invokes = len(inference)
    step = 50_000 + inference + 20_000 + 5_000
    start = np.concatenate([[0], np.cumsum(step)[:-1]])
    late: tuple[int, ...] = ()
    if pace_ms is not None:
        due = (np.arange(invokes) * pace_ms * 1e6).astype(np.int64)
        # An invoke begins when it is due and the one before it has ended.
        start = np.maximum.accumulate(due - np.cumsum(step) + step) + np.cumsum(step) - step
        late = tuple((start - due).tolist())
    samples = Samples(
        start_ns=tuple(start.tolist()),
        input_ns=(50_000,) * invokes,
        inference_ns=tuple(inference.tolist()),
        state_ns=(20_000,) * invokes,
        output_ns=(5_000,) * invokes,
        late_ns=late,
    )
    first = int(inference[0])
    return Launch(
        started_s=started_s,
        library_ns=3_000_000,
        load_ns=4 * first,
        reset_ns=100_000,
        first_ns=2 * first,
        warmup_ns=(first, first, first),
        samples=samples,
        memory=_memory(peak, swap),
    )


def _memory(peak: int, swap: int) -> tuple[MemoryMark, ...]:
    base = 10 * MIB
    resident = {
        Place.START: 2 * MIB,
        Place.LIBRARY: base,
        Place.LOADED: base + peak // 2,
        Place.FIRST: base + peak,
        Place.END: base + peak,
    }
    return tuple(
        MemoryMark(at=at, vm_hwm_bytes=rss, vm_rss_bytes=rss, vm_swap_bytes=swap if at == Place.END else 0)
        for at, rss in resident.items()
    )


def _engine(runtime: Runtime, threads: int) -> EngineFacts:
    executorch = runtime == Runtime.EXECUTORCH
    return EngineFacts(
        api="ExecuTorch" if executorch else "LiteRt",
        library="_portable_lib.so" if executorch else "libLiteRt.so",
        library_version="1.4.1" if executorch else "2.3.0",
        library_sha256=_sha256("library " + runtime),
        delegate="XNNPACK",
        fully_accelerated=None if executorch else True,
        state_loop="alias" if executorch else "swap",
        threads=threads,
        runner_sha256=_sha256("runner " + runtime),
        runner_version="1",
        memory_includes=("libtorch",) if executorch else (),
    )


def _reading(moment: Moment, device: DeviceFacts, time_s: float) -> Reading:
    if device.kind == DeviceKind.HOST:
        return Reading(moment=moment, time_s=time_s, governors={"0": "performance"}, load_average=0.1)
    return Reading(
        moment=moment,
        time_s=time_s,
        battery_percent=80.0,
        charging=False,
        battery_c=28.0,
        thermal_status=0,
        temperatures_c={"CPU": 35.0 + time_s / 60, "skin": 30.0},
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
