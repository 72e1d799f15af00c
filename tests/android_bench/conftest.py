"""One server of the real adb for all tests of this folder, and loopback phones that are connected to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_adb import AdbServer, adb_server
from loopback_phone import LoopbackPhone
from loopback_system import Description

from mvtool.android_bench.adb import Adb


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    with adb_server(tmp_path_factory.mktemp("adb")) as started:
        yield started


@pytest.fixture(scope="session")
def shared_loopback(server: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    with LoopbackPhone(tmp_path_factory.mktemp("loopback") / "phone") as phone:
        yield phone


@pytest.fixture
def loopback(server: AdbServer, shared_loopback: LoopbackPhone) -> Iterator[LoopbackPhone]:
    """A phone that nothing is wrong with; a test may break its connection, but not send it away."""
    phone = shared_loopback
    server.connect(phone)
    yield phone
    phone.fault = None
    phone.commands.clear()
    phone.system.end_processes()
    phone.system.description = Description()
    phone.system.refresh()
    for path in phone.system.data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    server.disconnect(phone)


@pytest.fixture
def leaving(server: AdbServer, tmp_path: Path) -> Iterator[LoopbackPhone]:
    """A phone of one test alone, which may go away."""
    with LoopbackPhone(tmp_path / "phone") as phone:
        server.connect(phone)
        yield phone
        server.disconnect(phone)


@pytest.fixture
def adb(server: AdbServer, loopback: LoopbackPhone) -> Adb:
    """adb, bound to the phone that nothing is wrong with."""
    return Adb(server.program, loopback.serial, server.variables)
