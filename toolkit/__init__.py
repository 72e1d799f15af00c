"""Convert, quantize, verify and run PyTorch video models for phones."""

__version__ = "0.1.0"
