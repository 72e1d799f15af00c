"""Data sets by a word on the command line.

motion                             the generator's defaults, see `mvtool.datasets.motion`
motion:split=train,clips=500       with other values of its fields
videos/                            folder with one subfolder of videos per class
list.csv                           columns `path` and `label`
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from mvtool.datasets.base import LabelledVideos
from mvtool.datasets.files import from_csv, from_folder
from mvtool.datasets.motion import MotionVideos
from mvtool.errors import UsageError

GENERATOR = "motion"


def parse(spec: str) -> LabelledVideos:
    """The data set of a specification.

    Raises:
        UsageError: It names nothing that can be read.
        VideoError: A folder or list holds no labelled videos.
    """
    if is_generator(spec):
        return MotionVideos(**_fields(spec.partition(":")[2]))
    path = Path(spec)
    if path.is_dir():
        return from_folder(path)
    if path.is_file():
        return from_csv(path)
    raise UsageError(
        f"The data set {spec!r} is neither a folder with one subfolder per class, nor a CSV file, nor {GENERATOR} or "
        f"{GENERATOR}:NAME=VALUE,... for generated clips."
    )


def is_generator(spec: str) -> bool:
    """Whether a word means generated clips; a file or folder called `motion` has precedence."""
    return spec.startswith(f"{GENERATOR}:") or (spec == GENERATOR and not Path(spec).exists())


def _fields(words: str) -> dict[str, Any]:
    types = {field.name: field.type for field in fields(MotionVideos)}
    values: dict[str, Any] = {}
    for word in filter(None, words.split(",")):
        name, equals, value = word.partition("=")
        if name not in types or not equals:
            raise UsageError(f"{GENERATOR}: got {word!r}; expected NAME=VALUE with a name of {', '.join(types)}.")
        values[name] = _number(name, value) if types[name] == "int" else value
    return values


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"{GENERATOR}: {name} is {value!r}; expected a whole number.") from None
