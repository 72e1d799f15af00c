"""From a path to named tensors: safetensors, PyTorch, TensorFlow checkpoint, SavedModel.

Nothing in a file is executed: PyTorch files go through `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mvtool.errors import WeightsError
from mvtool.zoo.checkpoints import tensorflow_files

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
_CHUNK_BYTES = 1 << 20


class Container(StrEnum):
    """File format of weights."""

    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow checkpoint"
    SAVED_MODEL = "saved model"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a weight file.

    Attributes:
        path: Path as given.
        container: File format.
        tensors: Key to tensor, as stored.
        metadata: Text metadata of a safetensors file.
        sha256: Hash over all files that hold the weights, in order of their names.
    """

    path: Path
    container: Container
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str


def read(path: Path) -> Checkpoint:
    """Read all tensors of a weight file.

    Raises:
        WeightsError: Missing, truncated, of no known format, or holding anything but tensors.
        MissingExtraError: A TensorFlow file, and TensorFlow is not installed.
    """
    container, files = _identify(path)
    metadata: dict[str, str] = {}
    if container is Container.SAFETENSORS:
        tensors, metadata = _safetensors(path)
    elif container is Container.PYTORCH:
        tensors = _pytorch(path)
    elif container is Container.SAVED_MODEL:
        tensors = tensorflow_files.read_saved_model(path)
    else:
        tensors = tensorflow_files.read_checkpoint(tensorflow_files.prefix_of(path))
    return Checkpoint(path, container, tensors, metadata, _sha256(files))


def _identify(path: Path) -> tuple[Container, list[Path]]:
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return Container.SAVED_MODEL, [path / "saved_model.pb", *sorted((path / "variables").glob("variables.*"))]
    if files := tensorflow_files.files_of(path):
        return Container.TENSORFLOW, files
    if not path.is_file():
        raise WeightsError(
            f"There are no weights at {path}. Give a .safetensors, .pth or .pt file, the prefix of a TensorFlow "
            "checkpoint (the path without .index) or the folder of a SavedModel."
        )
    if path.suffix == ".safetensors":
        return Container.SAFETENSORS, [path]
    # Training scripts of PyTorch's examples write `checkpoint.pth.tar`, which is no archive.
    if path.suffix in (".pth", ".pt", ".bin", ".pyth", ".ckpt") or path.name.endswith(".pth.tar"):
        return Container.PYTORCH, [path]
    remedy = "Unpack the archive first." if path.suffix in (".gz", ".tar", ".zip") else "Convert it to one of these."
    raise WeightsError(
        f"{path} has a suffix that is no weight format; known are .safetensors, .pth, .pt, TensorFlow checkpoints "
        f"(.index beside .data) and SavedModel folders. {remedy}"
    )


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a complete safetensors file: {error}. Copy or download it again.") from error


def _pytorch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # Older files use other pickle protocols; the restricted unpickler then warns, and fails if it cannot go on.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors (or is no PyTorch file) and is not loaded, because unpickling it could run "
            f"code: {_first_line(error)}. Save it again with torch.save(model.state_dict(), path)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{path} is not a complete PyTorch file: {_first_line(error)}. Copy or download it again."
        ) from error
    tensors = _unwrap(content)
    if tensors is None:
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, expected a state_dict (names to tensors). "
            "Save it again with torch.save(model.state_dict(), path)."
        )
    return tensors


def _unwrap(content: Any) -> dict[str, Tensor] | None:
    """The state_dict in `content`, also under the usual names of training files and without DataParallel's prefix."""
    if not isinstance(content, Mapping):
        return None
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper])
    if not content or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return None
    return {key.removeprefix("module."): value for key, value in content.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_CHUNK_BYTES):
                digest.update(block)
    return digest.hexdigest()
