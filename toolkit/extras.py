"""Importing optional packages with an error that says how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType

from mvtool.errors import MissingExtraError

EXTRA_OF_PACKAGE = {
    "torch": "torch",
    "litert_torch": "tflite",
    "ai_edge_litert": "tflite",
    "coremltools": "coreml",
    "executorch": "executorch",
    "tensorflow": "tensorflow",
    "av": "video",
    "matplotlib": "video",
    "PIL": "video",
    "ray": "ray",
    "torchao": "qat",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import `module` or raise an error that names the `pip install` line.

    Args:
        module: Dotted name, for example `"coremltools.models"`.
        purpose: Completes "it is needed ...", for example `"to write Core ML models"`.

    Raises:
        MissingExtraError: The top-level package is not installed. An import error inside an
            installed package is passed on unchanged, because installing again would not mend it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(package, EXTRA_OF_PACKAGE[package], purpose) from error
