"""Nanoseconds from a profiler that gives whole microseconds, by a clock that runs a thousand times faster for its library.

The clock is `mvtool/data/fine_clock.c`, compiled once and preloaded into the process that profiles. Where there is no C compiler, or the
system is not Linux, profiles have the profiler's own resolution, and say so.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from mvtool.files import atomic_path

SOURCE = "fine_clock.c"
FASTER = 1000
COMPILERS = ("gcc", "clang", "cc")
TIMEOUT_S = 120.0
PRELOAD = "LD_PRELOAD"
_LOG = logging.getLogger(__name__)


def library(cache: Path | None = None) -> Path | None:
    """The compiled clock; None where it cannot be had.

    Args:
        cache: Folder for it; the user's cache if not given.
    """
    if sys.platform != "linux":
        return None
    wish = shlex.split(os.environ.get("CC", ""))
    compiler = wish or [path for name in COMPILERS if (path := shutil.which(name))][:1]
    if not compiler:
        return None
    source = (files("mvtool") / "data" / SOURCE).read_text("utf-8")
    key = hashlib.sha256("\0".join([source, *compiler]).encode()).hexdigest()[:16]
    target = (cache or _cache_folder()) / f"fine_clock-{key}.so"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-O2", "-shared", "-fPIC", "-x", "c", "-", "-ldl"]
    try:
        with atomic_path(target) as partial:
            subprocess.run(
                [*compiler, "-o", str(partial), *flags],
                input=source,
                text=True,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning("The fine clock cannot be compiled with %s: %s", shlex.join(compiler), error)
        return None
    return target


def speed_up(clock: Path, profiled: Path) -> bool:
    """Let the clock run faster for a loaded library.

    Args:
        clock: From `library`, preloaded into this process.
        profiled: The library.

    Returns:
        Whether the clock is preloaded and the library was found in this process.
    """
    fast = ctypes.CDLL(str(clock))
    if _address(fast.clock_gettime) != _address(ctypes.CDLL(None).clock_gettime):
        return False
    mapped = Path("/proc/self/maps").read_text("utf-8")
    places = [line.split()[0].split("-") for line in mapped.splitlines() if line.endswith(str(profiled.resolve()))]
    if not places:
        return False
    first, last = min(int(low, 16) for low, _ in places), max(int(high, 16) for _, high in places)
    switch = fast.mvtool_fine_clock
    switch.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    switch.restype = None
    switch(first, last)
    return True


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvtool" / "profile"
