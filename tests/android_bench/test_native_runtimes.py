"""The native runner computes what the Python session computes, with the real runtimes on real artifacts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import heavy_model
import numpy as np
import pytest
from native_launches import FRAMES, Artifacts, Launch, expected_dump, needed, prepare, split

from mvtool.android_bench.runners import build_runner
from mvtool.android_bench.toolchain import Target
from mvtool.bench import mappings
from mvtool.bench.device import Runner
from mvtool.bench.plan import CHECK_FILE, PLAN_FILE, WEIGHT_CACHE_FILE
from mvtool.bench.run_result import RunResult
from mvtool.ports import AnyArray, Precision, Runtime

pytest_plugins = ["native_fixtures"]
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 12
FP32_LIMIT = 1e-5
"""Other kernels sum in another order."""
MOST_GROWTH_KB = 512
CPUINFO = """processor\t: 0
BogoMIPS\t: 48.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
"""Of a Cortex-A76; qemu shows the host's, which LiteRT 2.2 and newer do not survive."""


@pytest.fixture(scope="session")
def launches(
    artifacts: Artifacts, litert: Runner, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Runtime, Precision], Launch]:
    """A launch on this machine, prepared once per artifact."""
    prepared: dict[tuple[Runtime, Precision], Launch] = {}

    def launch(runtime: Runtime, precision: Precision) -> Launch:
        if (runtime, precision) not in prepared:
            runner = litert if runtime is Runtime.TFLITE else request.getfixturevalue("executorch")
            folder = tmp_path_factory.mktemp("launch") / f"{runtime}_{precision}"
            prepared[runtime, precision] = prepare(folder, artifacts(runtime, precision), runner)
        return prepared[runtime, precision]

    return launch


def dump_of(launch: Launch, **changes: object) -> bytes:
    launch.run(check_steps=STEPS, **changes)
    return (launch.folder / CHECK_FILE).read_bytes()


def worst(launch: Launch, artifact: Path) -> dict[str, float]:
    """Largest difference of every port from the Python session, in real numbers."""
    manifest = launch.plan.ports
    got, want = dump_of(launch), expected_dump(artifact, STEPS)
    pairs = zip(split(manifest, got, STEPS), split(manifest, want, STEPS), strict=True)
    found: dict[str, float] = {}
    for (port, one), (_, other) in pairs:
        real: list[AnyArray] = [port.decode(array).astype(np.float64) for array in (one, other)]
        found[port.name] = max(found.get(port.name, 0.0), float(np.abs(real[0] - real[1]).max()))
    return found


CASES = [
    pytest.param(Runtime.TFLITE, Precision.FP32, id="tflite-fp32"),
    pytest.param(Runtime.TFLITE, Precision.INT8, id="tflite-int8"),
    pytest.param(Runtime.EXECUTORCH, Precision.FP32, id="executorch-fp32", marks=pytest.mark.slow),
    pytest.param(Runtime.EXECUTORCH, Precision.INT8, id="executorch-int8", marks=pytest.mark.slow),
]
RUNTIMES = [CASES[0], CASES[2]]

LaunchOf = Callable[[Runtime, Precision], Launch]


@pytest.mark.parametrize(("runtime", "precision"), CASES)
def test_outputs_and_states_are_those_of_the_session_byte_by_byte(
    launches: LaunchOf, artifacts: Artifacts, runtime: Runtime, precision: Precision
) -> None:
    launch = launches(runtime, precision)
    assert {bool(b.reset.element_hex) for b in launch.plan.ports.states} == {True, False}
    dump = dump_of(launch)
    assert len(dump) == replace(launch.plan, check_steps=STEPS).check_bytes
    assert dump == expected_dump(artifacts(runtime, precision), STEPS)
    assert STEPS > FRAMES


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
def test_the_result_says_what_was_executed(launches: LaunchOf, runtime: Runtime, precision: Precision) -> None:
    result = launches(runtime, precision).run(threads=1, warmup_invokes=4, min_invokes=9)
    assert result.runner.name == f"mvtool-run-{runtime}"
    assert (len(result.warmup_ns), len(result.samples.start_ns)) == (4, 9)
    assert (result.delegate.name, result.delegate.fully_accelerated) == ("XNNPACK", True)
    expected = {
        Runtime.TFLITE: ("LiteRt", "swap", ()),
        Runtime.EXECUTORCH: ("ExecuTorch", "copy", ("libtorch", "libpython")),
    }
    assert (result.library.api, result.state_loop, result.memory_includes) == expected[runtime]
    assert result.launch(0.0).memory[0].vm_hwm_bytes > 0


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
def test_a_launch_gives_the_same_bytes_however_it_is_timed(
    launches: LaunchOf, runtime: Runtime, precision: Precision
) -> None:
    launch = launches(runtime, precision)
    assert dump_of(launch, warmup_invokes=5, calls_per_second=500.0) == dump_of(launch, threads=2)


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
def test_the_runtime_has_the_threads_of_the_plan(launches: LaunchOf, runtime: Runtime, precision: Precision) -> None:
    """Workers beside the main thread; all of them on the processors of the plan."""
    launch = launches(runtime, precision)
    assert len(tasks_while_paced(launch, 1)) == 1
    masks = tasks_while_paced(launch, 3)
    assert (len(masks), set(masks)) == (3, {f"{1 << min(os.sched_getaffinity(0)):x}"})


def tasks_while_paced(launch: Launch, threads: int) -> list[str]:
    """Affinity mask of every thread of a launch that is in its timed part."""
    mask = f"{1 << min(os.sched_getaffinity(0)):x}"
    plan = replace(
        launch.plan, threads=threads, affinity=mask, check_steps=1, min_invokes=100000, calls_per_second=50.0
    )
    (launch.folder / PLAN_FILE).write_text(plan.to_text(), encoding="utf-8")
    check = launch.folder / CHECK_FILE
    check.unlink(missing_ok=True)
    with subprocess.Popen([*launch.program, PLAN_FILE], cwd=launch.folder, stderr=subprocess.DEVNULL) as process:
        try:
            # The check is written after the first invoke, in which delegates start their threads.
            while not check.exists() or check.stat().st_size < plan.check_bytes:
                assert process.poll() is None
                time.sleep(0.01)
            return [
                next(line.split()[1] for line in (task / "status").read_text().splitlines() if "Cpus_allowed:" in line)
                for task in Path(f"/proc/{process.pid}/task").iterdir()
            ]
        finally:
            process.kill()


@pytest.mark.parametrize(("runtime", "precision"), CASES[:2])
def test_a_launch_gives_the_same_bytes_with_packed_weights_from_a_file(
    launches: LaunchOf, runtime: Runtime, precision: Precision
) -> None:
    """That wrote them and that maps them."""
    launch = launches(runtime, precision)
    cache = launch.folder / WEIGHT_CACHE_FILE
    plain = dump_of(launch)
    assert not cache.exists()
    assert dump_of(launch, weight_cache=cache.name) == plain
    written = cache.read_bytes()
    assert len(written) > 1000
    assert dump_of(launch, weight_cache=cache.name) == plain
    assert cache.read_bytes() == written
    cache.unlink()


def test_the_models_pages_are_given_back_once_its_weights_are_packed(tmp_path: Path, litert: Runner) -> None:
    artifact = heavy_model.write(tmp_path / "heavy.tflite")
    launch = prepare(tmp_path / "run", artifact, litert)
    size_kb = artifact.stat().st_size // 1024
    assert resident_kb(launch, artifact.name, keep_model_pages=True) >= size_kb > 1000
    assert resident_kb(launch, artifact.name) < size_kb / 4
    # With the weights in a file, that is what stays.
    changes = {"weight_cache": WEIGHT_CACHE_FILE}
    assert resident_kb(launch, WEIGHT_CACHE_FILE, **changes) >= size_kb * 0.9
    assert dump_of(launch, **changes) == dump_of(launch, keep_model_pages=True) == expected_dump(artifact, STEPS)


def resident_kb(launch: Launch, name: str, **changes: object) -> int:
    """Pages of a file in memory after the last call."""
    launch.run(maps="maps.txt", **changes)
    return mappings.resident_kb((launch.folder / "maps.txt").read_text()).get(name, 0)


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
def test_memory_stays_flat_in_a_long_run(launches: LaunchOf, runtime: Runtime, precision: Precision) -> None:
    """The peak after 50,000 invokes against that after 1,000."""
    launch = launches(runtime, precision)
    short, long = (launch.run(min_invokes=count).memory[-1].vm_hwm_kb for count in (1000, 50000))
    assert long - short < MOST_GROWTH_KB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "fully", "evidence"),
    [
        (Runtime.TFLITE, False, "LiteRtCompiledModelIsFullyAccelerated is false"),
        (Runtime.EXECUTORCH, None, "2 delegates and 4 instructions"),
    ],
)
def test_a_network_that_the_delegate_takes_in_part(
    request: pytest.FixtureRequest, tmp_path: Path, runtime: Runtime, fully: bool | None, evidence: str
) -> None:
    from emitted import write
    from ramp_stream import captured_sum

    artifact = write(captured_sum(), runtime, Precision.FP32, tmp_path)
    runner = request.getfixturevalue("litert" if runtime is Runtime.TFLITE else "executorch")
    launch = prepare(tmp_path / "run", artifact, runner)
    delegate = launch.run().delegate
    assert (delegate.name, delegate.fully_accelerated) == ("XNNPACK", fully)
    assert evidence in delegate.evidence
    assert dump_of(launch) == expected_dump(artifact, STEPS)


def test_the_wheels_library_may_be_named_by_a_path(launches: LaunchOf, litert: Runner) -> None:
    result = launches(Runtime.TFLITE, Precision.FP32).run(library=str(litert.library))
    assert result.library.file == "libLiteRt.so"


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 30, 2000])
def test_a_program_that_breaks_off_is_refused(launches: LaunchOf, tmp_path: Path, cut: int) -> None:
    launch = launches(Runtime.EXECUTORCH, Precision.FP32)
    name = str(tmp_path / "broken.pte")
    Path(name).write_bytes((launch.folder / launch.plan.model).read_bytes()[:cut])
    ended = launch.start(model=name)
    assert (ended.returncode, "ExecuTorch failed to load" in ended.stderr) == (66, True)


@pytest.mark.slow
def test_what_the_executorch_runner_refuses(launches: LaunchOf) -> None:
    launch = launches(Runtime.EXECUTORCH, Precision.FP32)
    text = launch.plan.to_text()
    for old, new, status, message in (
        ("library -", "library libexecutorch.so", 64, "has its library linked in"),
        ("runtime executorch", "runtime tflite", 64, "for another runtime"),
        (
            "output 0 logits 20",
            "output 0 logits 16",
            66,
            "output 0 of the model has 20 bytes, the plan says that logits",
        ),
        ("output 0 logits 20", "output 9 logits 20", 66, "the plan puts logits at position 9"),
        ("output 0 logits 20\n", "", 66, "3 inputs and 4 outputs, the plan says 3 and 3"),
    ):
        assert old in text
        ended = launch.start(text.replace(old, new))
        assert (ended.returncode, message in ended.stderr) == (status, True), ended.stderr


@pytest.mark.slow
def test_executorch_swaps_buffers_that_its_memory_plan_leaves_to_the_caller(
    artifacts: Artifacts, executorch: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = unplanned_program(artifacts, tmp_path, monkeypatch)
    launch = prepare(tmp_path / "run", artifact, executorch)
    assert launch.run(check_steps=STEPS).state_loop == "swap"
    want = expected_dump(artifacts(Runtime.EXECUTORCH, Precision.FP32), STEPS)
    assert (launch.folder / CHECK_FILE).read_bytes() == want


def unplanned_program(artifacts: Artifacts, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same program, exported so that the caller gives memory for inputs and outputs."""
    from emitted import write
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.passes import MemoryPlanningPass
    from ramp_stream import captured

    original = ExecutorchBackendConfig.__init__

    def init(self: ExecutorchBackendConfig, *arguments: object, **options: object) -> None:
        options["memory_planning_pass"] = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
        original(self, *arguments, **options)

    monkeypatch.setattr(ExecutorchBackendConfig, "__init__", init)
    return write(captured(), Runtime.EXECUTORCH, Precision.FP32, folder)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_the_tflite_c_library_gives_the_same_states(
    artifacts: Artifacts, program: Path, tmp_path: Path, precision: Precision
) -> None:
    """Version 2.9, without XNNPACK. Its kernel of int8 weights with a scale per channel is wrong, so outputs of the head differ."""
    library = needed("MVTOOL_TFLITE_C", "libtensorflowlite_c.so")
    artifact = artifacts(Runtime.TFLITE, precision)
    launch = prepare(tmp_path / "run", artifact, Runner(program, library))
    differences = worst(launch, artifact)
    result = launch.run()
    assert (result.library.api, result.delegate.name) == ("TfLite", "unknown"), "it logs nothing"
    if precision is Precision.INT8:
        differences = {b.output.name: differences[b.output.name] for b in launch.plan.ports.states}
    assert max(differences.values()) < FP32_LIMIT


@pytest.fixture(scope="session")
def arm64_command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """qemu with Debian's arm64 C library and the processor's description in the emulated /proc."""
    root = tmp_path_factory.mktemp("arm64")
    (root / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CPUINFO, encoding="ascii")
    return ("qemu-aarch64-static", "-cpu", "cortex-a76", "-L", str(root))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "steps"), [(Precision.FP32, 0.0), (Precision.INT8, 1.0)])
def test_the_arm64_library_gives_the_same_outputs(
    artifacts: Artifacts, arm64_command: tuple[str, ...], tmp_path: Path, precision: Precision, steps: float
) -> None:
    """The real library and XNNPACK's kernels for ARM; int8 ports may differ by one step, from other float sums before."""
    library = needed("MVTOOL_AARCH64_LITERT", "a folder with an arm64 libLiteRt.so") / "libLiteRt.so"
    runner = Runner(build_runner(Runtime.TFLITE, Target.LINUX_ARM64), library)
    artifact = artifacts(Runtime.TFLITE, precision)
    launch = prepare(tmp_path / "run", artifact, runner, arm64_command)
    result: RunResult = launch.run()
    assert (result.runner.abi, result.delegate.name, result.state_loop) == ("arm64-v8a", "XNNPACK", "swap")
    largest = max(port.step for port in (*launch.plan.ports.input_ports, *launch.plan.ports.output_ports))
    assert max(worst(launch, artifact).values()) <= FP32_LIMIT + steps * largest * 1.001
