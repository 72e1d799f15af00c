"""The system of the loopback phone: its folder, its stand-in commands and files, and how its shell commands run.

Two ways, both with a real POSIX shell and the machine's own `sha256sum`, `timeout`, `env` and so on:

- In a mount namespace (`unshare -Urm`) whose root is this machine's, plus `/data/local/tmp` (a folder of the sandbox) and
  stand-ins laid over files of `/proc` and `/sys`. Paths on the phone are then real. With `qemu`, arm64 programs run
  there too: the namespace has a `binfmt_misc` of its own (Linux 6.7 or newer).
- Where namespaces are forbidden: the phone's paths are replaced by those of the sandbox in the text of each command, and
  the other way round in what it prints.

`LOOPBACK_NO_NAMESPACE=1` forces the second way; `LOOPBACK_TOOLS` names a folder of programs that come first, for example
Android's own shell and tools (mksh as `sh`, and links to toybox).

Only `/data/local/tmp` can be written through adb. Every process of the phone is known, so that a test can prove that none
is left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DATA = "/data/local/tmp"
_SETUP = """
set -e
root=$1; sandbox=$2
mount -t tmpfs none "$root"
for entry in /*; do
    case $entry in /data) continue ;; esac
    if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
    elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
    fi
done
mkdir -p "$root/data/local/tmp"
mount --bind "$sandbox/data/local/tmp" "$root/data/local/tmp"
for name in proc/meminfo proc/cpuinfo proc/loadavg sys/devices/system/cpu; do
    [ -e "$sandbox/$name" ] && mount --bind "$sandbox/$name" "$root/$name"
done
if [ -n "$3" ]; then
    mount -t binfmt_misc none "$root/proc/sys/fs/binfmt_misc"
    printf '%s' "$3" > "$root/proc/sys/fs/binfmt_misc/register"
fi
echo ready
exec chroot "$root" sleep 3600
"""
# Header of a 64-bit little-endian ELF file for machine 183 (AArch64), as in qemu's scripts/qemu-binfmt-conf.sh.
_AARCH64 = (
    r":mvtool-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 2
  health: 2
  present: true
  level: 85
  scale: 100
  voltage: 4205
  temperature: {tenths}
  technology: Li-ion

BatteryEvents:
  level: 12
  temperature: 999
"""
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=99.0, mType=3, mName=skin, mStatus=0}}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{{mValue={skin}, mType=3, mName=skin, mStatus={status}}}
\tTemperature{{mValue=41.5, mType=0, mName=CPU0, mStatus=0}}
\tTemperature{{mValue=4.2, mType=6, mName=vbat, mStatus=0}}
Current cooling devices from HAL:
"""


@dataclass
class Description:
    """What the phone says of itself; may be changed while it runs.

    Attributes:
        serial: `ro.serialno`.
        abi: `ro.product.cpu.abi`.
        skin_c: Temperature of the skin sensor.
        thermal_status: 0 to 6.
        qemu: Sysroot for arm64 programs (`lib` with the dynamic linker); None for programs of this machine.
        properties: Of `getprop`, further ones.
    """

    serial: str = "LOOPBACK0001"
    abi: str = "x86_64"
    skin_c: float = 31.4
    thermal_status: int = 0
    qemu: Path | None = None
    properties: dict[str, str] = field(default_factory=dict)


class LoopbackSystem:
    """Files and processes of the phone below `folder`."""

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder = folder.resolve()
        self.description = description
        self.data = self.folder / DATA.lstrip("/")
        self._holder: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self.data.mkdir(parents=True)
        self.refresh()
        self._write_commands()
        if namespaces_work():
            self._holder = self._hold_namespace()
        elif description.qemu is not None:
            raise RuntimeError("arm64 programs need a mount namespace")

    def path(self, remote: str) -> Path:
        """Where a path of the phone is in the sandbox; PermissionError for those outside of `/data/local/tmp`."""
        normal = os.path.normpath(remote)
        if normal != DATA and not normal.startswith(DATA + "/"):
            raise PermissionError(13, "Permission denied", remote)
        return self.folder / normal.lstrip("/")

    def refresh(self) -> None:
        """Write what the commands print anew, after a change of the description."""
        says = self.description
        properties = {
            "ro.mvtool.loopback": "1",
            "ro.mvtool.emulated": "1" if says.qemu else "0",
            "ro.serialno": says.serial,
            "ro.product.manufacturer": "mvtool",
            "ro.product.model": "Loopback",
            "ro.product.device": "loopback",
            "ro.product.cpu.abi": says.abi,
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.build.fingerprint": "mvtool/loopback/loopback:14/TEST/1:user/test-keys",
            **says.properties,
        }
        self._write("system/getprop.txt", "".join(f"[{key}]: [{value}]\n" for key, value in properties.items()))
        self._write("system/battery.txt", BATTERY.format(tenths=round(says.skin_c * 10)))
        self._write("system/thermalservice.txt", THERMAL.format(status=says.thermal_status, skin=says.skin_c))
        self._write("proc/meminfo", "MemTotal:        7841012 kB\nMemFree:          311040 kB\n")
        self._write("proc/loadavg", "1.25 0.80 0.50 2/1234 5678\n")
        cores = os.cpu_count() or 1
        for name in ("present", "possible", "online"):
            self._write(f"sys/devices/system/cpu/{name}", f"0-{cores - 1}\n" if cores > 1 else "0\n")
        for cpu in range(cores):
            self._write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", f"{1_800_000 + cpu}\n")
            self._write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "schedutil\n")
        if says.qemu is not None:
            # Some arm64 libraries look up the core there and crash on the fields of another processor.
            core = "processor\t: {0}\nFeatures\t: fp asimd aes crc32 atomics fphp asimdhp asimddp\nCPU implementer\t: 0x41\n"
            core += "CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n"
            self._write("proc/cpuinfo", "".join(core.format(cpu) for cpu in range(cores)))

    def start(self, command: str, stderr: int) -> subprocess.Popen[bytes]:
        """Start a shell command of the phone."""
        inner = ["sh", "-c", command if self._holder else self._mapped(command)]
        if self._holder:
            enter = ["nsenter", "--preserve-credentials", "-t", str(self._holder.pid), "-U", "-m", "-r", "-w"]
            inner = [*enter, *inner]
        process = subprocess.Popen(
            inner,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self._environment(),
            cwd="/",
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def printed(self, data: bytes) -> bytes:
        """What a command printed, with the phone's paths."""
        return data if self._holder else data.replace(f"{self.folder}{DATA}".encode(), DATA.encode())

    def running(self, within_s: float = 0.0) -> list[int]:
        """Process groups of the phone that still have members, looked at until there are none or the time is over."""
        end = time.monotonic() + within_s
        while True:
            for process in self._processes:
                process.poll()
            groups = [process.pid for process in self._processes if _has_group(process.pid)]
            if not groups or time.monotonic() >= end:
                return groups
            time.sleep(0.02)

    def end_processes(self) -> None:
        """End every process that adb started."""
        _end(self._processes)
        self._processes.clear()

    def close(self) -> None:
        """End every process."""
        self.end_processes()
        _end([self._holder] if self._holder else [])

    def _environment(self) -> dict[str, str]:
        own = os.environ.get("LOOPBACK_TOOLS", "")
        path = ":".join(filter(None, [str(self.folder / "system/bin"), own, "/usr/bin:/bin:/usr/sbin:/sbin"]))
        qemu = self.description.qemu
        return {"PATH": path, **({"QEMU_LD_PREFIX": str(qemu), "QEMU_CPU": "cortex-a76"} if qemu else {})}

    def _mapped(self, command: str) -> str:
        for name in (DATA, "/proc/meminfo", "/proc/loadavg", "/sys/devices/system/cpu"):
            command = command.replace(name, f"{self.folder}{name}")
        return command

    def _hold_namespace(self) -> subprocess.Popen[bytes]:
        root = self.folder / "root"
        root.mkdir()
        rule = _AARCH64.format(qemu=shutil.which("qemu-aarch64-static")) if self.description.qemu else ""
        holder = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", _SETUP, "setup", str(root), str(self.folder), rule],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            holder.wait()
            raise RuntimeError("the mount namespace of the loopback phone could not be set up")
        return holder

    def _write_commands(self) -> None:
        texts = f'"{self.folder}/system"'
        find = f"""sed -n "s/^\\[$1\\]: \\[\\(.*\\)\\]$/\\1/p" {texts}/getprop.txt"""
        self._write(
            "system/bin/getprop", f"#!/bin/sh\nif [ $# -eq 0 ]; then cat {texts}/getprop.txt; else {find}; fi\n"
        )
        missing = 'echo "Can\'t find service: $1"'
        dumpsys = f"#!/bin/sh\nif [ -e {texts}/$1.txt ]; then cat {texts}/$1.txt; else {missing}; fi\n"
        self._write("system/bin/dumpsys", dumpsys)
        self._write("system/bin/uname", '#!/bin/sh\necho "Linux localhost 6.1.0-loopback aarch64 Toybox"\n')
        for command in (self.folder / "system/bin").iterdir():
            command.chmod(0o755)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _has_group(pid: int) -> bool:
    """Whether a process group has a member that is no zombie."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = entry.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(group) == pid and state != "Z":
            return True
    return False


@cache
def namespaces_work() -> bool:
    """Whether this user may make a mount namespace."""
    if os.environ.get("LOOPBACK_NO_NAMESPACE") or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    )
    return tried.returncode == 0


@cache
def why_no_arm64() -> str | None:
    """Why arm64 programs cannot run on the loopback phone; None if they can."""
    if shutil.which("qemu-aarch64-static") is None:
        return "qemu-aarch64-static is not installed"
    if not namespaces_work():
        return "mount namespaces are forbidden here"
    words = ["unshare", "-Urm", "mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc"]
    tried = subprocess.run(words, check=False, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no binfmt_misc in a user namespace: {tried.stderr.strip()}"
