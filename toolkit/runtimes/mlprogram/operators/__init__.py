"""The operators of the reference evaluator, one module per group.

Semantics are those of the operator definitions in coremltools 9.0
(`coremltools/converters/mil/mil/ops/defs/iOS15` to `iOS18`), which document the intermediate language.
"""

from __future__ import annotations

import importlib

_GROUPS = (
    "activation",
    "compression",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resizing",
    "scatter",
    "shaping",
    "slicing",
    "sorting",
)


def load() -> None:
    """Enter all operators into the table."""
    for group in _GROUPS:
        importlib.import_module(f"{__name__}.{group}")
