"""The contract of a device that artifacts are measured on, the same for this machine and for phones."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mvtool.bench.record import DeviceFacts, Moment, Reading
from mvtool.ports import Runtime


@dataclass(frozen=True)
class Runner:
    """A runner for one runtime and instruction set, with what it needs beside it.

    Attributes:
        program: The executable.
        library: Runtime library to open; None where it is linked into the program.
        library_version: Of the package that the library came from, where that is known.
        beside: Other files that must lie beside the program.
        environment: Variables that the process needs.
    """

    program: Path
    library: Path | None
    library_version: str | None = None
    beside: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


class Workspace(Protocol):
    """A folder of this run alone on a device; it is gone when its context ends, however that ended."""

    def put(self, source: Path, name: str, executable: bool = False) -> None:
        """Copy a file there; afterwards the bytes are proved to be the same by their SHA-256.

        Raises:
            DeviceError: The device is gone, its disk is full, or the bytes differ.
        """
        ...

    def execute(self, program: str, arguments: tuple[str, ...], environment: dict[str, str], timeout_s: float) -> str:
        """Run a program of the folder, in the folder, to its end.

        Returns:
            What it printed on stdout and stderr.

        Raises:
            RunnerError: It crashed, ended with another status than 0, or was ended after `timeout_s`.
            DeviceError: The device is gone.
        """
        ...

    def get(self, name: str) -> bytes:
        """Content of a file of the folder.

        Raises:
            DeviceError: The device is gone.
            RunnerError: There is no such file.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a file of the folder, if it is there."""
        ...


class Device(Protocol):
    """This machine or a phone."""

    def facts(self) -> DeviceFacts:
        """What it is.

        Raises:
            DeviceError: It cannot be reached.
        """
        ...

    def runner(self, runtime: Runtime) -> Runner:
        """The runner for `runtime`, compiled if it has to be.

        Raises:
            ToolchainError: There is none and it cannot be compiled; the message names the remedy.
            UsageError: It needs a library that was not given.
        """
        ...

    def reading(self, moment: Moment, time_s: float) -> Reading:
        """Temperatures, battery and clocks now.

        Raises:
            DeviceError: It cannot be reached.
        """
        ...

    def workspace(self) -> AbstractContextManager[Workspace]:
        """A new folder for one run.

        Raises:
            DeviceError: It cannot be made.
        """
        ...
