"""Processes that are forked from one which has imported what they share.

A worker process that starts anew imports PyTorch and an exporter, which takes seconds. A `Template` imports them once and
waits; each process that it is asked for is a copy of it. It runs no threads of its own and computes nothing before it is copied.

Linux only: elsewhere the frameworks' own system libraries do not survive a fork, see `available`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from mvtool.parent import PARENT_VARIABLE, as_parent, end_with_parent

# Far above any message; one message is one datagram.
_LARGEST_MESSAGE = 1 << 16
_STREAMS = 3
PATIENCE_S = 300.0
"""Time that a template has for its imports."""


def available() -> bool:
    """Whether processes can be forked from a template here."""
    return sys.platform == "linux"


class TemplateGone(OSError):
    """The template process has ended; nothing more can be forked from it."""


class ForkedProcess:
    """A forked process, with what its starter needs of `subprocess.Popen`.

    Attributes:
        pid: Identifier; the process leads a session of its own.
        returncode: As of `Popen`: None while it runs, `-N` for signal N.
        stdin: Writes to its standard input.
        stdout: Reads its standard output.
    """

    def __init__(self, pid: int, stdin: IO[bytes] | None, stdout: IO[bytes]) -> None:
        """Take over the ends of its pipes."""
        self.pid = pid
        self.returncode: int | None = None
        self.stdin, self.stdout = stdin, stdout
        self._ended = threading.Event()

    def ended(self, code: int) -> None:
        """Set its exit code; the template tells it."""
        if self.returncode is None:
            self.returncode = code
            self._ended.set()

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.returncode

    def wait(self) -> int:
        """Wait for its end."""
        self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it and what it started in its session."""
        if self.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


class Template:
    """The process that others are forked from, as its starter sees it.

    Args:
        modules: Imported before the first fork; one that cannot be is left to whoever needs it.
        environment: Added to that of this process.

    Attributes:
        busy_seconds: Wall time that it has taken for imports and preparations, known after the first fork.
        cpu_seconds: Processor time of the same.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; it imports while this process goes on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # -P: modules in the folder where the user works must not take the place of Python's own.
                [sys.executable, "-P", "-m", "mvtool.forking", str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, **as_parent(), **environment},
            )
        self._socket = ours
        self._lock = threading.Lock()
        self._started: queue.Queue[int | None] = queue.Queue()
        self._processes: dict[int, ForkedProcess] = {}
        self._codes: dict[int, int] = {}
        self._gone = False
        self.busy_seconds = self.cpu_seconds = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Identifier of the process."""
        return self._process.pid

    def prepare(self, function: str, argument: str) -> None:
        """Call `function`, as `package.module:name`, with `argument` in the template, before whatever is forked next.

        What it raises is left to the forked process that does the same.
        """
        try:
            self._socket.send(json.dumps({"prepare": function, "argument": argument}).encode())
        except OSError:
            self._lose()

    def start(self, function: str, argument: str, log: IO[bytes], stdin: bool = False) -> ForkedProcess:
        """Fork a process that calls `function` with `argument`.

        Args:
            function: As `package.module:name`; takes a string and returns the exit code.
            argument: The string.
            log: Its standard error.
            stdin: It has an input to write to, else an empty one.

        Raises:
            TemplateGone: The template has ended.
        """
        given, to_give = _input(stdin)
        out, written = os.pipe()
        message = json.dumps({"fork": function, "argument": argument}).encode()
        with self._lock:
            try:
                if self._gone:
                    raise TemplateGone("the template has ended")
                socket.send_fds(self._socket, [message], [given, written, log.fileno()])
                pid = self._started.get(timeout=PATIENCE_S)
                if pid is None:
                    raise TemplateGone("the template has ended")
            except (OSError, queue.Empty) as error:
                os.close(out)
                if to_give is not None:
                    os.close(to_give)
                self._lose()
                raise TemplateGone(str(error)) from error
            finally:
                os.close(given)
                os.close(written)
            process = ForkedProcess(pid, None if to_give is None else os.fdopen(to_give, "wb"), os.fdopen(out, "rb"))
            self._processes[pid] = process
            if pid in self._codes:
                process.ended(self._codes.pop(pid))
        return process

    def close(self) -> None:
        """End the template and every process that was forked from it."""
        for process in list(self._processes.values()):
            process.kill()
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(_LARGEST_MESSAGE)
            except OSError:
                message = b""
            if not message:
                self._lose()
                return
            found: dict[str, int] = json.loads(message)
            if "forked" in found:
                self.busy_seconds, self.cpu_seconds = found["busy_ms"] / 1e3, found["cpu_ms"] / 1e3
                self._started.put(found["forked"])
            else:
                self._note_end(found["ended"], found["code"])

    def _note_end(self, pid: int, code: int) -> None:
        process = self._processes.get(pid)
        if process is None:
            # It ended before `start` had registered it.
            self._codes[pid] = code
            process = self._processes.get(pid)
        if process is not None:
            process.ended(code)

    def _lose(self) -> None:
        """The template is gone, and with it the kernel ended what was forked from it."""
        self._gone = True
        self._started.put(None)
        for process in list(self._processes.values()):
            process.ended(-int(signal.SIGKILL))


def _input(wanted: bool) -> tuple[int, int | None]:
    """The input of a process, and the end that writes to it."""
    return os.pipe() if wanted else (os.open(os.devnull, os.O_RDONLY), None)


class _Server:
    """The template itself: imports, waits, forks, and tells how its children ended."""

    def __init__(self, channel: socket.socket, busy_s: float) -> None:
        self._channel = channel
        self._busy_s = busy_s
        self._children: set[int] = set()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> int:
        """Until the starter is gone; a forked process returns its exit code from here too."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        while True:
            channel = self._channel.fileno()
            ready, _, _ = select.select([channel, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if channel not in ready:
                continue
            message, streams, _, _ = socket.recv_fds(self._channel, _LARGEST_MESSAGE, _STREAMS)
            if not message:
                return 0
            asked: dict[str, str] = json.loads(message)
            if "prepare" in asked:
                began = time.perf_counter()
                _attempt(lambda asked=asked: _function(asked["prepare"])(asked["argument"]))  # type: ignore[misc]
                self._busy_s += time.perf_counter() - began
                continue
            code = self._fork(asked, streams)
            if code is not None:
                return code

    def _fork(self, asked: Mapping[str, str], streams: Sequence[int]) -> int | None:
        parent = os.getpid()
        # What lives now lives as long as the process; its copies need not look through it for garbage.
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if pid:
            self._children.add(pid)
            times = {"busy_ms": round(1e3 * self._busy_s), "cpu_ms": round(1e3 * time.process_time())}
            self._channel.send(json.dumps({"forked": pid, **times}).encode())
            for stream in streams:
                os.close(stream)
            return None
        self._become_child(parent, streams)
        return int(_function(asked["fork"])(asked["argument"]))

    def _become_child(self, parent: int, streams: Sequence[int]) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._channel.close()
        os.close(self._woken)
        os.close(self._wake)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ[PARENT_VARIABLE] = str(parent)
        end_with_parent()

    def _reap(self) -> None:
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                self._channel.send(json.dumps({"ended": pid, "code": code}).encode())


def _function(name: str) -> Callable[[str], Any]:
    module, _, attribute = name.partition(":")
    found: Callable[[str], Any] = getattr(importlib.import_module(module), attribute)
    return found


def _attempt(act: Callable[[], object]) -> None:
    """What fails in the template fails in the forked process too, which tells of it."""
    try:
        act()
    except Exception:  # noqa: BLE001 - see above
        traceback.print_exc()


def main(descriptor: str, *modules: str) -> None:
    """Serve on the socket `descriptor`; does not return."""
    end_with_parent()
    began = time.perf_counter()
    channel = socket.socket(fileno=int(descriptor))
    for module in modules:
        _attempt(lambda module=module: importlib.import_module(module))  # type: ignore[misc]
    try:
        code = _Server(channel, time.perf_counter() - began).serve()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the exit code tells, standard error says why
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without taking the interpreter apart object by object.
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
