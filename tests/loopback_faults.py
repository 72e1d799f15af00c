"""What can go wrong with the loopback phone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What goes wrong."""

    DROP_PUSH = "the connection breaks after `after` bytes of a pushed file"
    DROP_PULL = "the connection breaks after `after` bytes of a pulled file"
    DROP_SHELL = "the connection breaks when a command that contains `where` has printed `after` bytes"
    REFUSE_PUSH = "a pushed file is refused with the message `where`"
    TRUNCATE_PUSH = "of a pushed file only `after` bytes are stored, and success is reported"


@dataclass(frozen=True)
class Fault:
    """One fault; see `Kind` for `after` and `where`. With `gone` the phone stays away after a drop."""

    kind: Kind
    after: int = 0
    where: str = ""
    gone: bool = False


class ConnectionGone(Exception):
    """The other side closed the stream or the connection."""
