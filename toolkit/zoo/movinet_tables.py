"""MoViNet architectures nano, T0 and A0 to A3, one row per layer.

Source of T0 and A0 to A3: `official/projects/movinet/modeling/movinet.py` of the TensorFlow Model Garden (`BLOCK_SPECS`), whose
released checkpoints fit these tables. Tables 16 to 21 of the paper (Kondratyuk et al. 2021, arXiv 2103.11511)
differ in single rows: shifted or doubled lines, and floored sizes.
"""

from __future__ import annotations

from mvtool.zoo.movinet_config import Architecture, Block, Layer

NANO = Architecture(
    name="nano",
    stem=8,
    head=192,
    dense=256,
    dropout=0.1,
    blocks=(
        Block(16, 2, (Layer(3, 5, 32),)),
        Block(24, 2, (Layer(3, 3, 64), Layer(3, 3, 64))),
        Block(40, 2, (Layer(5, 3, 112), Layer(3, 3, 112), Layer(3, 3, 112))),
        Block(64, 1, (Layer(5, 3, 184), Layer(3, 3, 184))),
    ),
)
"""Ours, for small pictures: a third of T0's layers, with temporal kernels from the first layer on."""
T0 = Architecture(
    name="t0",
    stem=8,
    head=240,
    dense=1024,
    dropout=0.2,
    blocks=(
        Block(8, 2, (Layer(1, 5, 16),)),
        Block(
            32,
            2,
            (
                Layer(3, 3, 72),
                Layer(1, 5, 72),
            ),
        ),
        Block(
            56,
            2,
            (
                Layer(5, 3, 112),
                Layer(1, 5, 112),
                Layer(3, 3, 112),
            ),
        ),
        Block(
            56,
            1,
            (
                Layer(5, 3, 184),
                Layer(1, 5, 184),
                Layer(3, 3, 184),
                Layer(3, 3, 184),
            ),
        ),
        Block(
            104,
            2,
            (
                Layer(5, 3, 344),
                Layer(1, 5, 344),
                Layer(1, 5, 344),
                Layer(3, 3, 344),
            ),
        ),
    ),
)
A0 = Architecture(
    name="a0",
    stem=8,
    head=480,
    dense=2048,
    dropout=0.2,
    blocks=(
        Block(8, 2, (Layer(1, 5, 24),)),
        Block(
            32,
            2,
            (
                Layer(3, 3, 80),
                Layer(3, 3, 80),
                Layer(3, 3, 80),
            ),
        ),
        Block(
            56,
            2,
            (
                Layer(5, 3, 184),
                Layer(3, 3, 112),
                Layer(3, 3, 184),
            ),
        ),
        Block(
            56,
            1,
            (
                Layer(5, 3, 184),
                Layer(3, 3, 184),
                Layer(3, 3, 184),
                Layer(3, 3, 184),
            ),
        ),
        Block(
            104,
            2,
            (
                Layer(5, 3, 384),
                Layer(1, 5, 280),
                Layer(1, 5, 280),
                Layer(1, 5, 344),
            ),
        ),
    ),
)
A1 = Architecture(
    name="a1",
    stem=16,
    head=600,
    dense=2048,
    dropout=0.2,
    blocks=(
        Block(
            16,
            2,
            (
                Layer(1, 5, 40),
                Layer(3, 3, 40),
            ),
        ),
        Block(
            40,
            2,
            (
                Layer(3, 3, 96),
                Layer(3, 3, 120),
                Layer(3, 3, 96),
                Layer(3, 3, 96),
            ),
        ),
        Block(
            64,
            2,
            (
                Layer(5, 3, 216),
                Layer(3, 3, 128),
                Layer(3, 3, 216),
                Layer(3, 3, 168),
                Layer(3, 3, 216),
            ),
        ),
        Block(
            64,
            1,
            (
                Layer(5, 3, 216),
                Layer(3, 3, 216),
                Layer(3, 3, 216),
                Layer(3, 3, 128),
                Layer(1, 5, 128),
                Layer(3, 3, 216),
            ),
        ),
        Block(
            136,
            2,
            (
                Layer(5, 3, 456),
                Layer(1, 5, 360),
                Layer(1, 5, 360),
                Layer(1, 5, 360),
                Layer(1, 5, 456),
                Layer(3, 3, 456),
                Layer(1, 3, 544),
            ),
        ),
    ),
)
A2 = Architecture(
    name="a2",
    stem=16,
    head=640,
    dense=2048,
    dropout=0.5,
    blocks=(
        Block(
            16,
            2,
            (
                Layer(1, 5, 40),
                Layer(3, 3, 40),
                Layer(3, 3, 64),
            ),
        ),
        Block(
            40,
            2,
            (
                Layer(3, 3, 96),
                Layer(3, 3, 120),
                Layer(3, 3, 96),
                Layer(3, 3, 96),
                Layer(3, 3, 120),
            ),
        ),
        Block(
            72,
            2,
            (
                Layer(5, 3, 240),
                Layer(3, 3, 160),
                Layer(3, 3, 240),
                Layer(3, 3, 192),
                Layer(3, 3, 240),
            ),
        ),
        Block(
            72,
            1,
            (
                Layer(5, 3, 240),
                Layer(3, 3, 240),
                Layer(3, 3, 240),
                Layer(3, 3, 240),
                Layer(1, 5, 144),
                Layer(3, 3, 240),
            ),
        ),
        Block(
            144,
            2,
            (
                Layer(5, 3, 480),
                Layer(1, 5, 384),
                Layer(1, 5, 384),
                Layer(1, 5, 480),
                Layer(1, 5, 480),
                Layer(3, 3, 480),
                Layer(1, 3, 576),
            ),
        ),
    ),
)
A3 = Architecture(
    name="a3",
    stem=16,
    head=744,
    dense=2048,
    dropout=0.5,
    blocks=(
        Block(
            16,
            2,
            (
                Layer(1, 5, 40),
                Layer(3, 3, 40),
                Layer(3, 3, 64),
                Layer(3, 3, 40),
            ),
        ),
        Block(
            48,
            2,
            (
                Layer(3, 3, 112),
                Layer(3, 3, 144),
                Layer(3, 3, 112),
                Layer(1, 5, 112),
                Layer(3, 3, 144),
                Layer(3, 3, 144),
            ),
        ),
        Block(
            80,
            2,
            (
                Layer(5, 3, 240),
                Layer(3, 3, 152),
                Layer(3, 3, 240),
                Layer(3, 3, 192),
                Layer(3, 3, 240),
            ),
        ),
        Block(
            88,
            1,
            (
                Layer(5, 3, 264),
                Layer(3, 3, 264),
                Layer(3, 3, 264),
                Layer(3, 3, 264),
                Layer(1, 5, 160),
                Layer(3, 3, 264),
                Layer(3, 3, 264),
                Layer(3, 3, 264),
            ),
        ),
        Block(
            168,
            2,
            (
                Layer(5, 3, 560),
                Layer(1, 5, 448),
                Layer(1, 5, 448),
                Layer(1, 5, 560),
                Layer(1, 5, 560),
                Layer(3, 3, 560),
                Layer(1, 5, 448),
                Layer(1, 5, 448),
                Layer(3, 3, 560),
                Layer(1, 3, 672),
            ),
        ),
    ),
)
