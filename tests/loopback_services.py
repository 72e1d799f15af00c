"""The services of the loopback phone: `shell`, `exec` and `sync`, as in adbd's `shell_service.cpp` and `file_sync_service.cpp`."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from loopback_faults import ConnectionGone, Kind

if TYPE_CHECKING:
    from loopback_phone import LoopbackPhone, Stream

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_CHUNK_BYTES = 64 * 1024
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")


def run_shell(stream: Stream, phone: LoopbackPhone, command: str, framed: bool) -> None:
    """Run a command; `framed` is the second version of the protocol, which knows stderr and exit statuses.

    A lost connection does not end the command, as on a real phone: it may go on until it writes.
    """
    process = phone.system.start(command, subprocess.PIPE if framed else subprocess.STDOUT)
    out, lock = _Output(stream, phone, command), threading.Lock()
    pumps = [threading.Thread(target=_pump, args=(process.stdout, out, lock, _STDOUT if framed else None), daemon=True)]
    if framed:
        pumps.append(threading.Thread(target=_pump, args=(process.stderr, out, lock, _STDERR), daemon=True))
    threading.Thread(target=_feed, args=(stream, process, framed), daemon=True).start()
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    status = process.wait() if not out.broken else 0
    if framed and not out.broken:
        # A shell reports a signal as 128 + its number.
        stream.write(struct.pack("<BIB", _EXIT, 1, (status if status >= 0 else 128 - status) & 0xFF))


class _Output:
    """Sends what a command prints, and breaks the connection where a fault says so."""

    def __init__(self, stream: Stream, phone: LoopbackPhone, command: str) -> None:
        self._stream = stream
        self._printed = phone.system.printed
        self._fault = phone.take_fault(Kind.DROP_SHELL, command)
        self._sent = 0
        self.broken = False

    def write(self, data: bytes, kind: int | None) -> None:
        data = self._printed(data)
        if self._fault is not None and self._sent + len(data) >= self._fault.after:
            self._send(data[: self._fault.after - self._sent], kind)
            self.broken = True
            self._stream.connection.fail(self._fault)
        self._send(data, kind)
        self._sent += len(data)

    def _send(self, data: bytes, kind: int | None) -> None:
        if data:
            self._stream.write(data if kind is None else struct.pack("<BI", kind, len(data)) + data)


def _pump(pipe: IO[bytes], out: _Output, lock: threading.Lock, kind: int | None) -> None:
    with pipe:
        while data := os.read(pipe.fileno(), _CHUNK_BYTES):
            try:
                with lock:
                    out.write(data, kind)
            except ConnectionGone:
                out.broken = True
                return


def _feed(stream: Stream, process: subprocess.Popen[bytes], framed: bool) -> None:
    assert process.stdin is not None
    with suppress(ConnectionGone, OSError, ValueError), process.stdin as sink:
        while framed:
            kind, length = struct.unpack("<BI", stream.read(5))
            data = stream.read(length)
            if kind == _CLOSE_STDIN:
                return
            if kind == _STDIN:
                sink.write(data)
                sink.flush()
        while True:
            sink.write(stream.read(1))
            sink.flush()


def run_sync(stream: Stream, phone: LoopbackPhone) -> None:
    """Serve requests for files until the client quits."""
    while True:
        request, length = struct.unpack("<4sI", stream.read(8))
        if request == b"QUIT":
            return
        path = stream.read(length).decode()
        if request in (b"STAT", b"STA2", b"LST2"):
            stream.write(_stat(phone, request, path))
        elif request in (b"LIST", b"LIS2"):
            _list(stream, phone, path, request == b"LIS2")
        elif request == b"SEND":
            _receive_file(stream, phone, path)
        elif request == b"RECV":
            _send_file(stream, phone, path)
        else:
            _refuse(stream, f"unknown command {request!r}")
            return


def _stat(phone: LoopbackPhone, request: bytes, path: str) -> bytes:
    error, found = 0, None
    try:
        found = phone.system.path(path).lstat()
    except OSError as failure:
        error = failure.errno or 5
    if request == b"STAT":
        return struct.pack("<4sIII", request, *(_short(found) if found else (0, 0, 0)))
    return _STAT_V2.pack(request, error, *(_long(found) if found else (0,) * 10))


def _short(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mode, found.st_size, int(found.st_mtime)


def _long(found: os.stat_result) -> tuple[int, ...]:
    times = int(found.st_atime), int(found.st_mtime), int(found.st_ctime)
    owner = found.st_nlink, found.st_uid, found.st_gid
    return found.st_dev, found.st_ino, found.st_mode, *owner, found.st_size, *times


def _list(stream: Stream, phone: LoopbackPhone, path: str, second: bool) -> None:
    with suppress(OSError):
        for entry in sorted(phone.system.path(path).iterdir()):
            name, found = entry.name.encode(), entry.lstat()
            if second:
                head = _STAT_V2.pack(b"DNT2", 0, *_long(found))
            else:
                head = struct.pack("<4sIII", b"DENT", *_short(found))
            stream.write(head + struct.pack("<I", len(name)) + name)
    empty = _STAT_V2.pack(b"DONE", *(0,) * 11) if second else struct.pack("<4sIII", b"DONE", 0, 0, 0)
    stream.write(empty + struct.pack("<I", 0))


def _receive_file(stream: Stream, phone: LoopbackPhone, request: str) -> None:
    path, _, mode = request.rpartition(",")
    refuse, drop = phone.take_fault(Kind.REFUSE_PUSH), phone.take_fault(Kind.DROP_PUSH)
    cut = phone.take_fault(Kind.TRUNCATE_PUSH)
    try:
        target, error = phone.system.path(path), ""
        target.touch()
    except OSError as failure:
        target, error = Path(os.devnull), f"couldn't create file: {failure.strerror}"
    received = 0
    with target.open("wb") as file:
        while True:
            kind, length = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            data = stream.read(length)
            file.write(data if cut is None else data[: max(cut.after - received, 0)])
            received += length
            if drop is not None and received >= drop.after:
                file.flush()
                stream.connection.fail(drop)
    if refuse is not None:
        error = refuse.where
    if error:
        _refuse(stream, error)
        return
    target.chmod(stat.S_IMODE(int(mode)) | 0o600)
    stream.write(struct.pack("<4sI", b"OKAY", 0))


def _send_file(stream: Stream, phone: LoopbackPhone, path: str) -> None:
    drop, sent = phone.take_fault(Kind.DROP_PULL), 0
    try:
        file = phone.system.path(path).open("rb")
    except OSError as failure:
        _refuse(stream, f"open failed: {failure.strerror}")
        return
    with file:
        while data := file.read(_CHUNK_BYTES):
            if drop is not None and sent + len(data) >= drop.after:
                data = data[: max(drop.after - sent, 0)]
                stream.write(struct.pack("<4sI", b"DATA", _CHUNK_BYTES) + data)
                stream.connection.fail(drop)
            stream.write(struct.pack("<4sI", b"DATA", len(data)) + data)
            sent += len(data)
    stream.write(struct.pack("<4sI", b"DONE", 0))


def _refuse(stream: Stream, message: str) -> None:
    stream.write(struct.pack("<4sI", b"FAIL", len(message)) + message.encode())
