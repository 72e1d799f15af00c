"""The one place that says what shape a network of the zoo takes."""

from __future__ import annotations

from mvtool.errors import UsageError

RGB = 3


def check_video(
    network: str,
    shape: tuple[int, ...],
    *,
    batch: int | None = None,
    frames: int | None = None,
    size: tuple[int | None, int | None] = (None, None),
    remedy: str = "Put the axes in this order",
) -> None:
    """Refuse what is no (N, 3, T, H, W); the message says what came and what is expected.

    Args:
        network: What the message calls the network.
        shape: Shape that came.
        batch: N, None for any.
        frames: T, None for any from 1.
        size: H and W, None for any.
        remedy: What to do about it, without a full stop.

    Raises:
        UsageError: The shape is another.

    Example:
        >>> check_video("X3D", (1, 3, 13, 160, 160))
        >>> check_video("X3D", (1, 13, 3, 160, 160))
        Traceback (most recent call last):
        ...
        mvtool.errors.UsageError: X3D got a video of shape (1, 13, 3, 160, 160), expected (N, C, T, H, W) = (any, 3, any, any, any). Put the axes in this order.
    """
    expected = (batch, RGB, frames, *size)
    fits = len(shape) == len(expected) and all(
        want in (None, got) and got > 0 for got, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise UsageError(f"{network} got a video of shape {shape}, expected (N, C, T, H, W) = ({wanted}). {remedy}.")
