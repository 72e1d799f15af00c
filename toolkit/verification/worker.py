"""The process that examines one artifact: `python -m mvtool.verification.worker`.

A runtime may crash on a damaged file; then this process dies and the report is written all the same.
Messages are pickles on the standard streams, between two processes of one installation: a `Job` and
commands come in, `messages.Message` goes out.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from typing import BinaryIO, cast

from mvtool.allocator import keep_freed_memory
from mvtool.parent import end_with_parent
from mvtool.verification.examine import Examination
from mvtool.verification.messages import Command, Doing, Finish, Finished, Found, Job, Message, Ready, Step, Stepped


class _Worker:
    def __init__(self, commands: BinaryIO, messages: BinaryIO) -> None:
        self._commands = commands
        self._messages = messages

    def send(self, message: Message) -> None:
        pickle.dump(message, self._messages)
        self._messages.flush()

    def receive(self) -> Command:
        return cast(Command, pickle.load(self._commands))

    def work(self) -> None:
        job = cast(Job, pickle.load(self._commands))
        examination = Examination(job, lambda activity: self.send(Doing(activity)))
        for result in examination.prepare():
            self.send(Found(result))
        if examination.replay is None:
            self.send(Finished(reason="the artifact cannot be stepped", seconds=time.process_time()))
            return
        self.send(Ready(examination.replay.session.engine))
        self._follow(examination)

    def _follow(self, examination: Examination) -> None:
        while isinstance(command := self.receive(), Step):
            for result in examination.step(command):
                self.send(Found(result))
            self.send(Stepped(command.number))
        assert isinstance(command, Finish)
        assert examination.replay is not None
        for result in examination.finish():
            self.send(Found(result))
        self.send(Finished(snr=tuple(examination.replay.snr), seconds=time.process_time()))


def work(_: str = "") -> int:
    """Serve the parent on the standard streams; the exit code."""
    end_with_parent()
    keep_freed_memory()
    # Runtimes print to standard output; only messages may reach the parent's pipe.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # By its number: the stream object of a process that was forked belongs to the one it was forked from.
    worker = _Worker(os.fdopen(0, "rb", closefd=False), messages)
    try:
        worker.work()
    except EOFError:
        return 1
    except Exception as error:  # noqa: BLE001 - the parent reports it as a failed check
        worker.send(Finished(reason=f"{type(error).__name__}: {error}", failed=True, seconds=time.process_time()))
    return 0


if __name__ == "__main__":
    sys.exit(work())
