"""What a model is called with: shapes and types as written on the command line.

--input 1x3x172x172                    the first argument, float32
--input frame=1x3x172x172:float32      the argument `frame`
--input state.0=1x32                   an element of the tuple argument `state`
--input cache.k=1x8x4                  an entry of the dict argument `cache`
--input points=1x3x8x8@tensor          no picture, although its shape is that of one
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from mvtool.errors import UsageError
from mvtool.ports import AnyArray, DType

DTYPES: tuple[str, ...] = get_args(DType)
IMAGE_LAYOUTS = {4: "NCHW", 5: "NCTHW"}
IMAGE_CHANNELS = 3
_TEXT = re.compile(
    r"^(?:(?P<name>[A-Za-z_][\w.]*)=)?(?P<shape>\d+(?:[x,]\d+)*|scalar)(?::(?P<dtype>\w+))?(?P<tensor>@tensor)?$"
)


@dataclass(frozen=True)
class InputSpec:
    """One tensor that `forward` takes.

    Attributes:
        name: Parameter of `forward`, dotted for an element of a tuple, list or dict argument; also
            the name of the port. None binds by position.
        shape: Shape with batch.
        dtype: Element type.
        as_kwarg: Pass it by keyword. None decides by the signature: by position, except for
            keyword-only parameters and those behind a parameter that is left out.
        image: It holds video frames, `(N, 3, H, W)` or `(N, 3, T, H, W)`, with values in [0, 1]. None
            decides by the shape.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: DType = "float32"
    as_kwarg: bool | None = None
    image: bool | None = None

    @property
    def is_image(self) -> bool:
        """Whether the input holds video frames."""
        if self.image is not None:
            return self.image
        return len(self.shape) in IMAGE_LAYOUTS and self.shape[1] == IMAGE_CHANNELS and self.dtype == "float32"

    @property
    def layout(self) -> str | None:
        """Axis letters of an image, None for other tensors."""
        return IMAGE_LAYOUTS.get(len(self.shape)) if self.is_image else None


def parse_input(text: str, *, image: bool | None = None) -> InputSpec:
    """Parse `[name=]1x3x172x172[:float32][@tensor]`.

    Args:
        text: Sizes joined with `x` or `,`, or `scalar` for a tensor without axes.
        image: Overrides the guess from the shape, as `@tensor` does.

    Raises:
        UsageError: The text has another form, a size is 0, or the type is unknown.

    Examples:
        >>> parse_input("frame=1x3x172x172").shape
        (1, 3, 172, 172)
        >>> parse_input("1x32:int64").is_image
        False
        >>> parse_input("points=1x3x8x8@tensor").is_image
        False
    """
    match = _TEXT.match(text.strip())
    if match is None:
        raise UsageError(
            f"The input {text!r} cannot be read; expected [name=]1x3x172x172[:float32][@tensor], "
            "for example frame=1x3x172x172 or state.0=1x32:float32."
        )
    sizes = [] if match["shape"] == "scalar" else [int(size) for size in re.split("[x,]", match["shape"])]
    if 0 in sizes:
        raise UsageError(f"The input {text!r} has an axis of size 0; every size must be at least 1.")
    dtype = match["dtype"] or "float32"
    if dtype not in DTYPES:
        raise UsageError(f"The input {text!r} asks for type {dtype!r}; expected one of {', '.join(DTYPES)}.")
    picture = False if match["tensor"] else image
    return InputSpec(match["name"], tuple(sizes), dtype, image=picture)  # type: ignore[arg-type]


def picture_of(specs: Sequence[InputSpec], states: Collection[str] = ()) -> InputSpec | None:
    """The first input that holds video frames; `states` are names of inputs that hold state."""
    return next((spec for spec in specs if spec.is_image and spec.name not in states), None)


def parse_state(text: str) -> tuple[str, str]:
    """Parse the `input=output` of `--state`.

    Raises:
        UsageError: There is not exactly one `=` with a name on each side.

    Examples:
        >>> parse_state("h=output_1")
        ('h', 'output_1')
    """
    before, equals, after = (part.strip() for part in text.partition("="))
    if not (before and equals and after) or "=" in after:
        raise UsageError(f"The state {text!r} cannot be read; expected input=output, for example h=output_1.")
    return before, after


def parse_initial(text: str) -> tuple[str, float | AnyArray]:
    """Parse the `input=number` or `input=file.npy` of `--initial`.

    Raises:
        UsageError: It has another form, or the file is no array.

    Examples:
        >>> parse_initial("h=0.5")
        ('h', 0.5)
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise UsageError(f"The initial value {text!r} cannot be read; expected input=0.5 or input=file.npy.")
    if Path(value).suffix == ".npy":
        try:
            return name, np.asarray(np.load(value, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"The initial value of {name!r} cannot be read from {value}: {error}.") from error
    try:
        return name, float(value)
    except ValueError as error:
        raise UsageError(
            f"The initial value {value!r} of {name!r} is neither a number nor a .npy file; for example {name}=0.5."
        ) from error
