"""Whole sessions with the native runner over the real adb: push, launches, gate, record, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback_adb import AdbServer
from loopback_phone import LoopbackPhone
from loopback_system import Description, why_no_arm64
from native_launches import Artifacts, needed, unavailable

from mvtool.android_bench.adb_devices import choose
from mvtool.android_bench.phone import Phone
from mvtool.android_bench.runners import build_runner
from mvtool.android_bench.toolchain import Target
from mvtool.bench.benching import CHECK_STEPS, bench
from mvtool.bench.device import Runner
from mvtool.bench.profiles import Request
from mvtool.bench.record import Record
from mvtool.bench.subjects import subjects
from mvtool.ports import Precision, Runtime

pytest_plugins = ["native_fixtures"]
# The frameworks that write the artifacts warn of themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

QUICK = Request(quick=True, launches=2, roofline=False)


def measure(server: AdbServer, phone: LoopbackPhone, artifact: Path, runner: Runner, abi: str) -> Record:
    """A session on the only phone that is connected."""

    def provide(runtime: Runtime, wanted: str) -> Runner:
        assert wanted == abi
        return runner

    device = Phone(choose(None, server.program, server.variables), provide)
    (record,) = bench(subjects(artifact), device, QUICK)
    assert phone.files == []
    assert phone.system.running(within_s=20) == []
    assert len(record.launches) == 2
    assert all(len(launch.samples.start_ns) >= 20 for launch in record.launches)
    assert record.correctness.steps == CHECK_STEPS
    assert record.device.loopback, "figures of a stand-in must be known as such"
    return record


@pytest.mark.slow
def test_with_the_runner_of_this_machine(
    server: AdbServer, loopback: LoopbackPhone, artifacts: Artifacts, litert: Runner
) -> None:
    record = measure(server, loopback, artifacts(Runtime.TFLITE, Precision.FP32), litert, "x86_64")
    assert (record.engine.api, record.engine.delegate, record.engine.library) == ("LiteRt", "XNNPACK", "libLiteRt.so")
    assert not record.device.emulated
    assert {reading.thermal_status for reading in record.readings} == {0}


@pytest.mark.slow
def test_with_executorch(server: AdbServer, loopback: LoopbackPhone, artifacts: Artifacts, executorch: Runner) -> None:
    record = measure(server, loopback, artifacts(Runtime.EXECUTORCH, Precision.FP32), executorch, "x86_64")
    assert (record.engine.api, record.engine.memory_includes) == ("ExecuTorch", ("libtorch", "libpython"))


@pytest.mark.slow
def test_with_the_arm64_runner_and_library_under_qemu(server: AdbServer, artifacts: Artifacts, tmp_path: Path) -> None:
    """The real aarch64 library, through the real adb; its times are those of an interpreter and are marked so."""
    library = needed("MVTOOL_AARCH64_LITERT", "a folder with an arm64 libLiteRt.so") / "libLiteRt.so"
    reason = why_no_arm64()
    if reason is not None:
        unavailable(reason)
    sysroot = tmp_path / "sysroot"
    sysroot.mkdir()
    (sysroot / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    runner = Runner(build_runner(Runtime.TFLITE, Target.LINUX_ARM64), library)
    description = Description(abi="arm64-v8a", qemu=sysroot)
    with LoopbackPhone(tmp_path / "phone", description) as phone:
        server.connect(phone)
        record = measure(server, phone, artifacts(Runtime.TFLITE, Precision.FP32), runner, "arm64-v8a")
        server.disconnect(phone)
    assert record.device.emulated
    assert record.device.abi == "arm64-v8a"
    assert record.engine.delegate == "XNNPACK"
