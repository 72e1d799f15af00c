"""Loading and saving the weights of a module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mvtool.errors import UsageError, WeightsError
from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.container import Checkpoint, Container, read
from mvtool.zoo.checkpoints.coverage import Coverage, Shape
from mvtool.zoo.checkpoints.keras_variables import KerasVariableNaming
from mvtool.zoo.checkpoints.model_garden import ModelGardenNaming
from mvtool.zoo.checkpoints.movinet_port import MoViNetPortNaming
from mvtool.zoo.checkpoints.naming import IGNORED, Naming, Supplies, TellsForm, fits
from mvtool.zoo.checkpoints.own import OwnNaming
from mvtool.zoo.checkpoints.pytorchvideo import PyTorchVideoNaming
from mvtool.zoo.checkpoints.resnet3d_garden import ResNet3DPathNaming, ResNet3DVariableNaming
from mvtool.zoo.checkpoints.slowfast import SlowFastNaming
from mvtool.zoo.checkpoints.torchvision_mobilenet import MobileNetV3Naming
from mvtool.zoo.checkpoints.torchvision_r2plus1d import R2Plus1DNaming
from mvtool.zoo.checkpoints.tsm import TSMNaming

WEIGHTS_FORMAT = "mvtool.weights/1"
NAMINGS: tuple[Naming, ...] = (
    OwnNaming(),
    MoViNetPortNaming(),
    ModelGardenNaming(),
    KerasVariableNaming(),
    MobileNetV3Naming(),
    TSMNaming(),
    SlowFastNaming(),
    PyTorchVideoNaming(),
    ResNet3DPathNaming(),
    ResNet3DVariableNaming(),
    R2Plus1DNaming(),
)


@runtime_checkable
class Gated(Protocol):
    """A module whose squeeze-excite gate can be chosen."""

    gate: Gate


@runtime_checkable
class HasForms(Protocol):
    """A module whose tensors fit other forms of the network too, which compute something else from them."""

    @property
    def trained_as(self) -> str | None:
        """What its weights have to be trained with, such as `one-sided temporal shift`; None for nothing special."""
        ...


@dataclass(frozen=True)
class LoadedWeights:
    """Where the weights of a module came from.

    Attributes:
        path: Path as given.
        container: File format.
        naming: Naming of the keys.
        tensors_used: Number of tensors that went into the model; bookkeeping is not counted.
        gate: Gate of the module after loading, None if it has none.
        sha256: Hash over all files that hold the weights.
        metadata: Text metadata of the file.
    """

    path: Path
    container: Container
    naming: str
    tensors_used: int
    gate: Gate | None
    sha256: str
    metadata: Mapping[str, str]


def load_weights(
    module: nn.Module, path: str | os.PathLike[str], *, gate: Gate | str | None = None, model: str | None = None
) -> LoadedWeights:
    """Overwrite all weights of `module`, or none.

    Args:
        module: Module of the zoo, or any module for a file with its own keys.
        path: .safetensors, .pth or .pt file, prefix or .index of a TensorFlow checkpoint, folder of a SavedModel.
        gate: Squeeze-excite gate to set. If not given, a stream takes the one its naming was published with:
            `ref` for Model Garden keys, `keras` for the PyTorch port's, the saved one for mvtool's own files.
        model: Name for messages.

    Raises:
        WeightsError: The file cannot be read, its naming is unknown, it does not cover the model exactly, or it was
            trained for another form of the network.
        MissingExtraError: A TensorFlow file, and TensorFlow is not installed.
        UsageError: `gate` is given for a module without one, or unknown.
    """
    checkpoint = read(Path(path))
    naming = _recognise(checkpoint, module)
    name = model or type(module).__name__
    _refuse_other_form(checkpoint, naming, module, name)
    assigned = _assign(checkpoint, naming, module, name)
    chosen = _choose_gate(module, gate, naming, checkpoint)
    module.load_state_dict({**assigned, **_supplied(naming, module)}, strict=False)
    if chosen is not None and isinstance(module, Gated):
        module.gate = chosen
    current = module.gate if isinstance(module, Gated) else None
    return LoadedWeights(
        checkpoint.path,
        checkpoint.container,
        naming.name,
        len(assigned),
        current,
        checkpoint.sha256,
        checkpoint.metadata,
    )


def load_members(
    module: nn.Module, paths: Sequence[str | os.PathLike[str]], *, gate: Gate | str | None = None
) -> tuple[LoadedWeights, ...]:
    """Load one file into each member of an ensemble (a module with a list `members`).

    Raises:
        WeightsError: The number of files differs from the number of members, or see `load_weights`.
    """
    members = list(getattr(module, "members", []))
    if len(members) != len(paths):
        raise WeightsError(f"{type(module).__name__} has {len(members)} members, got {len(paths)} weight files.")
    return tuple(
        load_weights(member, path, gate=gate, model=f"member {i} of {type(module).__name__}")
        for i, (member, path) in enumerate(zip(members, paths, strict=True))
    )


def save_weights(module: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> Path:
    """Write all weights of `module` as safetensors, atomically.

    Args:
        module: Any module; stream state is not saved.
        path: Should end in .safetensors.
        metadata: Text stored with the weights, for example the name of the model.

    Returns:
        The path.
    """
    target = Path(path)
    header = {**weights_header(module), **(metadata or {})}
    temporary = target.with_name(f".{target.name}.part")
    try:
        save_file({k: v.detach().contiguous() for k, v in _weights(module).items()}, temporary, header)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def weights_header(module: nn.Module) -> dict[str, str]:
    """Text beside the tensors of a weight file: what `module` computes that they do not tell."""
    header = {"format": WEIGHTS_FORMAT}
    if isinstance(module, Gated):
        header["gate"] = str(module.gate)
    if isinstance(module, HasForms) and module.trained_as is not None:
        header["trained_as"] = module.trained_as
    return header


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}


def _recognise(checkpoint: Checkpoint, module: nn.Module) -> Naming:
    keys = checkpoint.tensors.keys()
    for naming in NAMINGS:
        if keys and naming.matches(keys, module):
            return naming
    sample = ", ".join(sorted(keys)[:4]) or "none"
    known = ", ".join(naming.name for naming in NAMINGS)
    raise WeightsError(
        f"The weights {checkpoint.path} use no known naming of {type(module).__name__}: keys {sample}, ... Known namings are {known}. "
        "Check that the file belongs to this model, or rename its keys to those of `module.state_dict()`."
    )


def _refuse_other_form(checkpoint: Checkpoint, naming: Naming, module: nn.Module, name: str) -> None:
    told = checkpoint.metadata.get("trained_as")
    if told is None and isinstance(naming, TellsForm):
        told = naming.trained_as(checkpoint.tensors)
    needed = module.trained_as if isinstance(module, HasForms) else None
    if told not in (None, needed):
        raise WeightsError(
            f"The weights {checkpoint.path} were trained with {told}, and {name} computes with {needed or 'no temporal shift'}. "
            "Names and shapes of the tensors agree, but the same channels stand for other frames, so the results would be "
            f"wrong. Take weights that were trained for this form, or the zoo's other form of the model if it has one."
        )


def _assign(checkpoint: Checkpoint, naming: Naming, module: nn.Module, name: str) -> dict[str, Tensor]:
    """The new state_dict of `module`, without what the naming supplies.

    Raises:
        WeightsError: Not every tensor has exactly one counterpart of the right shape with finite values.
    """
    supplied = _supplied(naming, module)
    expected = {key: value for key, value in _weights(module).items() if key not in supplied}
    assigned: dict[str, Tensor] = {}
    unexpected: list[str] = []
    misshapen: list[tuple[str, Shape, Shape]] = []
    not_finite: list[str] = []
    for key, stored in checkpoint.tensors.items():
        target = naming.target(key, module)
        if target == IGNORED:
            continue
        if target is None or target not in expected or target in assigned:
            unexpected.append(key)
            continue
        tensor, shape = naming.layout(key, stored), tuple(expected[target].shape)
        assigned[target] = expected[target]
        if not fits(tuple(tensor.shape), shape):
            misshapen.append((target, tuple(tensor.shape), shape))
        elif not torch.isfinite(tensor).all():
            not_finite.append(key)
        else:
            assigned[target] = tensor.reshape(shape).to(expected[target].dtype).contiguous()
    missing = tuple(key for key in expected if key not in assigned)
    coverage = Coverage(missing, tuple(unexpected), tuple(misshapen), tuple(not_finite))
    if not coverage.complete:
        raise WeightsError(coverage.message(checkpoint.path, name, naming.name))
    return assigned


def _supplied(naming: Naming, module: nn.Module) -> dict[str, Tensor]:
    return naming.supplied(module) if isinstance(naming, Supplies) else {}


def _choose_gate(module: nn.Module, gate: Gate | str | None, naming: Naming, checkpoint: Checkpoint) -> Gate | None:
    if gate is not None:
        if not isinstance(module, Gated):
            raise UsageError(f"{type(module).__name__} has no squeeze-excite gate to choose; leave out gate={gate!r}.")
        return _gate(str(gate))
    if not isinstance(module, Gated):
        return None
    if "gate" in checkpoint.metadata:
        return _gate(checkpoint.metadata["gate"])
    # The hard gates are alternatives to each other; a model with a true sigmoid keeps it.
    return naming.gate if module.gate is not Gate.SIGMOID else None


def _gate(value: str) -> Gate:
    try:
        return Gate(value)
    except ValueError as error:
        raise UsageError(f"{value!r} is no gate; known are {', '.join(Gate)}.") from error
