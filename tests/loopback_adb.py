"""A hermetic server of the real adb for tests: own port, own keys, own log, and gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loopback_phone import LoopbackPhone
from native_launches import unavailable

from mvtool.android_bench.adb import Adb


@dataclass(frozen=True)
class AdbServer:
    """adb and the environment variables that lead to the server."""

    program: Path
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Of a process whose adb uses this server."""
        return {**os.environ, **self.variables}

    def call(self, *words: str, timeout_s: float = 20.0) -> str:
        """Run adb; returns stdout and stderr."""
        command = [str(self.program), *words]
        done = subprocess.run(
            command, env=self.environment, check=False, capture_output=True, text=True, timeout=timeout_s
        )
        return done.stdout + done.stderr

    def connect(self, phone: LoopbackPhone) -> Adb:
        """Connect a phone that lets in."""
        told = self.call("connect", phone.serial)
        assert "connected to" in told, told
        return Adb(self.program, phone.serial, self.variables)

    def connect_in_vain(self, phone: LoopbackPhone, state: str) -> None:
        """Begin a connection with a phone that does not let in, and wait until it is listed with `state`."""
        command = [str(self.program), "connect", phone.serial]
        with subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                end = time.monotonic() + 10
                while f"{phone.serial}\t{state}" not in (listed := self.call("devices")):
                    assert time.monotonic() < end, listed
                    time.sleep(0.05)
            finally:
                process.kill()

    def disconnect(self, phone: LoopbackPhone) -> None:
        """Forget a phone."""
        self.call("disconnect", phone.serial)


@contextmanager
def adb_server(folder: Path) -> Iterator[AdbServer]:
    """Start a server with everything of its own in `folder`; without adb the test is skipped, in CI it fails."""
    found = shutil.which(os.environ.get("ADB", "adb"))
    if found is None:
        unavailable("adb is not installed (Debian and Ubuntu: apt install adb)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {
        "ANDROID_ADB_SERVER_PORT": str(port),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "ADB_VENDOR_KEYS": "",
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",  # no search for emulators
        "ADB_MDNS_OPENSCREEN": "0",
        "ADB_MDNS": "0",
    }
    server = AdbServer(Path(found), variables)
    try:
        server.call("start-server", timeout_s=30)
        yield server
    finally:
        with suppress(subprocess.TimeoutExpired):
            server.call("kill-server")
