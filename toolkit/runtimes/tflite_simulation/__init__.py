"""A PyTorch simulation of an int8 `.tflite`, read from the file itself.

Every operator is computed on real numbers; every int8 tensor is rounded and clamped to the scale and zero
point that the file gives it. What the runtime computes on integers may therefore differ by a rounding, and
by nothing else. With `anchor=True` activations stay unrounded and only the weights are those of the file:
that must follow the float model, which proves that the file holds this model.

An operator that is not known is an error that names it, never a skip.
"""

from __future__ import annotations

from mvtool.runtimes.tflite_simulation.session import open_simulation

__all__ = ["open_simulation"]
