"""A stand-in phone for tests: it speaks adb's transport protocol on 127.0.0.1, so the real adb client and server drive it.

The protocol is that of `packages/modules/adb` in Android's sources: `protocol.txt` (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE),
`SERVICES.TXT` and `shell_protocol.h` (`shell,v2`), `SYNC.TXT` and `file_sync_protocol.h` (`sync:`). Its figures mean
nothing: `ro.mvtool.loopback` is 1, and every record of it is stamped so.

Faults are injected one by one (`phone.fault = Fault(...)`); each happens once, and the phone answers the next connection
as if nothing had been, unless it is `gone` or told to stay mute.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Self

from loopback_faults import ConnectionGone, Fault, Kind
from loopback_services import run_shell, run_sync
from loopback_system import Description, LoopbackSystem

_HEADER = struct.Struct("<6I")
_VERSION, _MAX_BYTES = 0x01000001, 256 * 1024
_FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"
_BANNER = f"device::ro.product.name=loopback;ro.product.model=Loopback;ro.product.device=loopback;features={_FEATURES}"
_AUTH_TOKEN, _AUTH_SIGNATURE = 1, 2


class Auth(Enum):
    """How the phone answers a new connection: it lets in, asks for a key that nobody confirmed, or says nothing."""

    OPEN = "open"
    UNAUTHORIZED = "unauthorized"
    MUTE = "mute"


class LoopbackPhone:
    """The phone; a context manager that serves until the block ends."""

    def __init__(self, folder: Path, description: Description | None = None, auth: Auth = Auth.OPEN) -> None:
        self.system = LoopbackSystem(folder, description or Description())
        self.auth = auth
        self.fault: Fault | None = None
        self.commands: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[Connection] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        for connection in self._connections:
            connection.drop()
        self.system.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def files(self) -> list[str]:
        """Everything that lies in `/data/local/tmp`."""
        return sorted(str(path.relative_to(self.system.data)) for path in self.system.data.rglob("*"))

    def leave(self) -> None:
        """Accept no further connection, like a phone that is switched off."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def drop(self) -> None:
        """Break all connections."""
        for connection in self._connections:
            connection.drop()

    def take_fault(self, kind: Kind, where: str = "") -> Fault | None:
        """The pending fault if it is of this kind and place; it is then no longer pending."""
        fault = self.fault
        if fault is None or fault.kind is not kind or (kind is Kind.DROP_SHELL and fault.where not in where):
            return None
        self.fault = None
        return fault

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # As adbd does; otherwise the second of two short messages waits 40 ms for the acknowledgement of the first.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, client)
            self._connections.append(connection)
            thread = threading.Thread(target=connection.serve, daemon=True)
            self._threads.append(thread)
            thread.start()


class Connection:
    """One TCP connection of adb's server."""

    def __init__(self, phone: LoopbackPhone, client: socket.socket) -> None:
        self.phone = phone
        self._socket = client
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._numbers = iter(range(1, 1 << 31))

    def serve(self) -> None:
        """Answer messages until the connection ends."""
        try:
            while True:
                command, first, second, data = self._receive()
                self._handle(command, first, second, data)
        except (OSError, ConnectionGone):
            pass
        finally:
            self.drop()
            for stream in list(self._streams.values()):
                stream.end()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Send one message; the checksum is that of old peers, new ones ignore it."""
        (number,) = struct.unpack("<I", command)
        header = _HEADER.pack(number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._lock:
            try:
                self._socket.sendall(header + data)
            except OSError as error:
                raise ConnectionGone from error

    def drop(self) -> None:
        """Break the connection without a word."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def fail(self, fault: Fault) -> None:
        """Break the connection as a fault wants it, and end the service that noticed."""
        if fault.gone:
            self.phone.leave()
        self.drop()
        raise ConnectionGone

    def close(self, stream: Stream) -> None:
        """The service of a stream ended."""
        if self._streams.pop(stream.local, None) is not None:
            with suppress(ConnectionGone):
                self.send(b"CLSE", stream.local, stream.remote)

    def _handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            self._greet()
        elif command == b"AUTH" and first == _AUTH_SIGNATURE:
            self.send(b"AUTH", _AUTH_TOKEN, 0, bytes(20))
        elif command == b"OPEN":
            self._open(first, data.rstrip(b"\0").decode())
        elif second in self._streams:
            stream = self._streams[second]
            if command == b"WRTE":
                stream.inbox.put(data)
                self.send(b"OKAY", stream.local, stream.remote)
            elif command == b"OKAY":
                stream.acknowledged.release()
            elif command == b"CLSE":
                del self._streams[second]
                stream.end()

    def _greet(self) -> None:
        if self.phone.auth is Auth.OPEN:
            self.send(b"CNXN", _VERSION, _MAX_BYTES, _BANNER.encode())
        elif self.phone.auth is Auth.UNAUTHORIZED:
            self.send(b"AUTH", _AUTH_TOKEN, 0, bytes(20))

    def _open(self, remote: int, service: str) -> None:
        name, _, rest = service.partition(":")
        stream = Stream(self, next(self._numbers), remote)
        if name.partition(",")[0] not in ("shell", "exec", "sync"):
            self.send(b"CLSE", 0, remote)
            return
        self._streams[stream.local] = stream
        self.send(b"OKAY", stream.local, remote)
        threading.Thread(target=self._serve_stream, args=(stream, name, rest), daemon=True).start()

    def _serve_stream(self, stream: Stream, name: str, rest: str) -> None:
        try:
            if name == "sync":
                run_sync(stream, self.phone)
            else:
                self.phone.commands.append(rest)
                run_shell(stream, self.phone, rest, framed="v2" in name.split(","))
        except ConnectionGone:
            pass
        finally:
            self.close(stream)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, first, second, length, _, _ = _HEADER.unpack(self._exactly(_HEADER.size))
        return struct.pack("<I", command), first, second, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise ConnectionGone
            data += chunk
        return bytes(data)


class Stream:
    """One service's two-way channel; a message may be sent when the one before was acknowledged."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.connection = connection
        self.local = local
        self.remote = remote
        self.inbox: queue.Queue[bytes | None] = queue.Queue()
        self.acknowledged = threading.Semaphore(1)
        self._ended = False
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Send bytes, in order with those of other threads that hold no part back."""
        for start in range(0, len(data), _MAX_BYTES):
            self.acknowledged.acquire()
            if self._ended:
                raise ConnectionGone
            self.connection.send(b"WRTE", self.local, self.remote, data[start : start + _MAX_BYTES])

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        while len(self._rest) < count:
            chunk = self.inbox.get()
            if chunk is None:
                raise ConnectionGone
            self._rest += chunk
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def end(self) -> None:
        """Wake whoever reads or writes."""
        self._ended = True
        self.inbox.put(None)
        self.acknowledged.release()
