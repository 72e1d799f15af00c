"""X3D by name: the rows of the paper's tables 3 and 4 (arXiv 2004.04730), and their registry entries.

The named models are nothing but expansion factors (`X3DGammas`). The paper expands in space by steps of the square
root of 2 and prints the crops, which stand here over 112. Two things are derived and not printed: the frame stride of
XXL, half of XL's, since the step from XL expands frame rate and depth; and its depth factor, the one (up to rounding)
that gives all three printed numbers, 20.3 M parameters, 143.5 GMACs at the centre crop and 194.1 at the larger one.
X2D is the network before any expansion; its shorter side is in proportion to XS. Parameters are exact for 400 classes
and count the weights only, not the batch statistics.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from mvtool.zoo.entry import InputRule, ModelEntry, Reported
from mvtool.zoo.x3d_config import BASE_RESOLUTION, X3DGammas, expanded

FACTORY = "mvtool.zoo.x3d:build_expanded"
VIDEO_RATE = 30.0
"""Frames per second of the videos that the frame strides refer to."""
_NOTE = "The paper leaves the weights of batch norms out of the parameters."
_DERIVED = " Depth and frame stride are not printed; the depth is the one that gives the printed numbers."
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class _Row:
    """One model.

    Attributes:
        name: Registry name.
        gammas: Expansion factors.
        resize: Shorter side in pixels before the crop.
        parameters: Exact count.
        paper_parameters: As printed.
        paper_macs: As printed, for one clip of the crop.
        top1: As printed, in per cent on Kinetics-400 with 10 clips and the centre crop.
    """

    name: str
    gammas: X3DGammas
    resize: int
    parameters: int
    paper_parameters: float | None
    paper_macs: float
    top1: float | None


def _gammas(tau: float, t: int, crop: int, w: float, b: float, d: float) -> X3DGammas:
    return X3DGammas(tau, t, crop / BASE_RESOLUTION, w, b, d)


ROWS = (
    #                    tau   t  crop    w     b     d  resize
    _Row("x2d", _gammas(1.0, 1, 112, 2.0, 1.00, 1.0), 128, 1_633_560, None, 20.67e6, None),
    _Row("x3d_xs", _gammas(12.0, 4, 160, 2.0, 2.25, 2.2), 182, 3_794_322, 3.76e6, 0.60e9, 68.6),
    _Row("x3d_s", _gammas(6.0, 13, 160, 2.0, 2.25, 2.2), 182, 3_794_322, 3.76e6, 1.96e9, 72.9),
    _Row("x3d_m", _gammas(5.0, 16, 224, 2.0, 2.25, 2.2), 256, 3_794_322, 3.76e6, 4.73e9, 74.6),
    _Row("x3d_l", _gammas(5.0, 16, 312, 2.0, 2.25, 5.0), 356, 6_153_432, 6.08e6, 18.37e9, 76.8),
    _Row("x3d_xl", _gammas(5.0, 16, 312, 2.9, 2.25, 5.0), 356, 11_095_904, 11.0e6, 35.84e9, 78.4),
    _Row("x3d_xxl", _gammas(2.5, 32, 312, 2.9, 2.25, 10.2), 356, 20_474_404, 20.3e6, 143.5e9, 80.0),
)


def _entry(row: _Row) -> ModelEntry:
    short = row.name.partition("_")[2].upper()
    return ModelEntry(
        name=row.name,
        family="x3d",
        description=f"X3D-{short}, whole clips" if short else "X2D, the single-frame network that X3D expands",
        factory=FACTORY,
        arguments={f"gamma_{axis}": value for axis, value in asdict(row.gammas).items()},
        stream=False,
        resolution=expanded(row.gammas).resolution,
        resize_short_side=row.resize,
        frames=row.gammas.t,
        frame_rate=VIDEO_RATE / row.gammas.tau,
        parameters=row.parameters,
        num_classes=400,
        mean=MEAN,
        std=STD,
        labels="kinetics400",
        rule=InputRule(),
        reported=_reported(row),
        damps=row.name == "x3d_xxl",
    )


def _reported(row: _Row) -> Reported:
    return Reported(
        source="X3D (arXiv 2004.04730), tables 1, 3 and 4",
        parameters=row.paper_parameters,
        macs=row.paper_macs,
        accuracy=f"{row.top1} % top-1, Kinetics-400, 10 centre clips" if row.top1 else "",
        note=_NOTE * (row.paper_parameters is not None) + _DERIVED * (row.name == "x3d_xxl"),
    )


ENTRIES = tuple(_entry(row) for row in ROWS)
