"""Loads every module that registers 4D forms of operators."""

from __future__ import annotations

import importlib

MODULES = ("rank_shapes", "rank_convolution", "rank_pooling", "rank_normalization", "rank_products")


def load() -> None:
    """Fill `rank.HANDLERS`."""
    for name in MODULES:
        importlib.import_module(f"mvtool.converters.rewrites.{name}")
