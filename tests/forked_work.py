"""What forked processes do in `test_forking`: functions of a module that the template imports."""

from __future__ import annotations

import os
import signal
import sys
import time

PREPARED: list[str] = []


def prepare(argument: str) -> None:
    """Leave a trace in the template."""
    if argument == "fail":
        raise ValueError("cannot be prepared")
    PREPARED.append(argument)


def work(argument: str) -> int:
    """Do as told."""
    if argument == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if argument == "sleep":
        child = os.fork()
        print(child or os.getpid(), flush=True)
        time.sleep(60)
    if argument == "echo":
        print(sys.stdin.readline().strip() or os.read(0, 100).decode().strip(), flush=True)
    if argument == "raise":
        raise RuntimeError("as told")
    print(f"{','.join(PREPARED)} {os.getsid(0) == os.getpid()} {os.environ['MARK']}", flush=True)
    print("to the log", file=sys.stderr)
    return 3 if argument == "three" else 0
