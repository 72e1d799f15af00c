"""Where a model comes from: the zoo, the user's own code, a saved `.pt2`, or a module in memory.

movinet_a0_stream              a name of the zoo
package.module:factory         a function, class or module object in the user's code
model.pt2                      a program saved with torch.export.save
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mvtool.converters.inputs import DTYPES, InputSpec
from mvtool.converters.naming import identifier
from mvtool.converters.user_code import build_from_code, is_module
from mvtool.errors import SourceError, UsageError
from mvtool.extras import require
from mvtool.files import sha256_of
from mvtool.ports import Preprocessing
from mvtool.program import ModelInfo
from mvtool.zoo import registry

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from mvtool.zoo.checkpoints import LoadedWeights
    from mvtool.zoo.entry import ModelEntry

PathLike = str | os.PathLike[str]
STREAM_STEPS = 4
"""Steps of a stream that the norms of untrained weights are settled on."""
PT2_SUFFIX = ".pt2"
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".index")


@dataclass(frozen=True)
class Source:
    """A loaded model, ready for capture.

    Attributes:
        module: The model in eval mode, where it has one.
        info: Its name and what is known beside the graph.
        inputs: Shapes the model says itself; empty where the user must give them.
        output_names: Names for its outputs; empty where capture derives them.
        origin: What was loaded, as the user wrote it, without folders.
        weights: Where the weights came from, one entry per file; empty where the module brought its own.
        sha256: Hash of the file of a saved program.
    """

    module: nn.Module
    info: ModelInfo
    inputs: tuple[InputSpec, ...] = ()
    output_names: tuple[str, ...] = ()
    origin: str = ""
    weights: tuple[LoadedWeights, ...] = ()
    sha256: str | None = None


def load(
    spec: PathLike | nn.Module,
    *,
    weights: PathLike | Sequence[PathLike] | None = None,
    arguments: Mapping[str, object] | None = None,
    gate: str | None = None,
    frames: int | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Source:
    """Load a model.

    Args:
        spec: See the module docstring, or a module.
        weights: Weight file, or one per member of an ensemble. A model of the zoo without weights is
            filled deterministically and marked as untrained.
        arguments: Keyword arguments of the factory, for the zoo for example `num_classes` and `resolution`.
        gate: Squeeze-excite gate of a MoViNet stream, see `mvtool.zoo.checkpoints.load_weights`.
        frames: Frames per step for the zoo: length of a base model's clip, or of a stream's chunk.
        name: Name of the model in manifests and file names, in place of the derived one.
        seed: Seed of the deterministic fill.

    Raises:
        SourceError: The model cannot be found, imported or built.
        WeightsError: The weights do not fit.
        UsageError: An option does not apply to this kind of source.
    """
    require("torch", "to load a model")
    if not isinstance(spec, str | os.PathLike):
        if not is_module(spec):
            raise SourceError(f"A model is a name, a path or a torch.nn.Module, got a {type(spec).__name__}.")
        source = _own(spec, type(spec).__name__, type(spec).__name__, weights, arguments)
    elif Path(spec).suffix == PT2_SUFFIX:
        source = _saved(Path(spec), weights, arguments)
    elif ":" in str(spec):
        module = build_from_code(str(spec), arguments or {})
        source = _own(module, _code_name(str(spec)), str(spec), weights, None)
    else:
        _refuse_weight_file(str(spec))
        return _named(_from_zoo(registry.get(str(spec)), weights, arguments or {}, gate, frames, seed), name)
    if gate is not None or frames is not None:
        raise UsageError(
            "--gate and --frames belong to models of the zoo; give the shapes of an own model with --input."
        )
    return _named(source, name)


def _named(source: Source, name: str | None) -> Source:
    return source if name is None else replace(source, info=replace(source.info, name=name))


def _refuse_weight_file(spec: str) -> None:
    if Path(spec).suffix in WEIGHT_SUFFIXES:
        raise SourceError(
            f"{spec} holds weights, not a model. Name the model and give the file with --weights, "
            "for example: mvtool convert movinet_a0_stream --weights a0.pth"
        )
    if Path(spec).suffix == ".py":
        raise SourceError(
            f"{spec} is a file; name the function that builds the model, for example {Path(spec).stem}:make, from its folder."
        )


def _from_zoo(
    entry: ModelEntry,
    weights: PathLike | Sequence[PathLike] | None,
    arguments: Mapping[str, object],
    gate: str | None,
    frames: int | None,
    seed: int,
) -> Source:
    from mvtool.zoo.untrained import damp_branches, deterministic_weights

    arguments = dict(arguments)
    if "frames" in arguments:
        if frames is not None:
            raise UsageError("frames is given twice, as an option and among the factory's arguments; give it once.")
        frames = arguments.pop("frames")  # type: ignore[assignment]
    per_step = entry.frames_per_call if frames is None else frames
    try:
        module = entry.build(frames=per_step, **arguments)  # type: ignore[arg-type]
    except TypeError as error:
        raise SourceError(f"The zoo model {entry.name} cannot be built with {dict(arguments)}: {error}") from error
    height, width = entry.check(arguments.get("resolution", entry.resolution), per_step)
    if weights is None and entry.weights is not None:
        weights = Path(str(files("mvtool") / "data" / entry.weights))
    loaded = _load_weights(module, weights, gate, entry.name)
    if not loaded:
        deterministic_weights(module, seed)
        if entry.damps:
            damp_branches(module)
        if entry.settles:
            _settle(module, entry, (1, 3, per_step * (STREAM_STEPS if entry.stream else 1), height, width), seed)
        if gate is not None:
            _set_gate(module, gate)
    known = arguments.get("num_classes") in (None, entry.num_classes)
    info = ModelInfo(
        name=entry.name,
        untrained=not loaded,
        frames_per_step=per_step,
        frame_rate=entry.frame_rate,
        preprocessing=_preprocessing(entry, height, width),
        labels=entry.labels if known else None,
        calibration=entry.calibration,
    )
    return Source(
        module=module.eval(),
        info=info,
        inputs=(InputSpec(None, (1, 3, per_step, height, width)),),
        output_names=("logits",),
        origin=entry.name,
        weights=loaded,
    )


def _settle(module: nn.Module, entry: ModelEntry, shape: tuple[int, ...], seed: int) -> None:
    import torch

    from mvtool.threads import single_threaded_torch
    from mvtool.zoo.untrained import blobs_and_grain, settle_norms

    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1, 1) for values in (entry.mean, entry.std))
    with single_threaded_torch():
        settle_norms(module, (blobs_and_grain(shape, seed) - mean) / std)


def _preprocessing(entry: ModelEntry, height: int, width: int) -> Preprocessing:
    # Another resolution keeps the published ratio of resize to crop.
    short_side = round(entry.resize_short_side * max(height, width) / entry.resolution)
    return Preprocessing(resize_short_side=short_side, crop=(height, width), mean=entry.mean, std=entry.std)


def _set_gate(module: nn.Module, gate: str) -> None:
    from mvtool.streaming import Gate
    from mvtool.zoo.checkpoints.load import Gated

    if not isinstance(module, Gated) or gate not in set(Gate):
        raise UsageError(f"{gate!r} is no gate of {type(module).__name__}; known are {', '.join(Gate)}.")
    module.gate = Gate(gate)


def _load_weights(
    module: nn.Module, weights: PathLike | Sequence[PathLike] | None, gate: str | None, name: str
) -> tuple[LoadedWeights, ...]:
    from mvtool.zoo.checkpoints import load_members, load_weights

    if weights is None:
        return ()
    if isinstance(weights, str | os.PathLike):
        return (load_weights(module, weights, gate=gate, model=name),)
    paths = list(weights)
    return load_members(module, paths, gate=gate) if len(paths) != 1 else _load_weights(module, paths[0], gate, name)


def _own(
    module: nn.Module,
    name: str,
    origin: str,
    weights: PathLike | Sequence[PathLike] | None,
    arguments: Mapping[str, object] | None,
) -> Source:
    if arguments:
        raise UsageError("Factory arguments were given with a module that is built already; build it with them.")
    loaded = _load_weights(module, weights, None, name)
    return Source(module, ModelInfo(name=identifier(name)), origin=origin, weights=loaded)


def _code_name(spec: str) -> str:
    path, _, attribute = spec.partition(":")
    return f"{path.rpartition('.')[2]}_{attribute}"


def _saved(path: Path, weights: object, arguments: Mapping[str, object] | None) -> Source:
    from mvtool.converters.pt2 import load_exported

    if weights is not None or arguments:
        raise UsageError(f"{path} brings its own weights and takes no factory arguments.")
    if not path.is_file():
        raise SourceError(f"There is no file {path}.")
    try:
        exported = load_exported(path)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} is no program that can be loaded: {error}. Save it with torch.export.save of the installed torch."
        ) from error
    return Source(
        module=exported.module(),
        info=ModelInfo(name=identifier(path.stem)),
        inputs=_saved_inputs(exported),
        origin=path.name,
        sha256=sha256_of(path),
    )


def _saved_inputs(exported: ExportedProgram) -> tuple[InputSpec, ...]:
    """Input shapes of a saved program; none where one is dynamic or an argument is nested."""
    positional, keywords = exported.call_spec.in_spec.children()
    if not all(child.is_leaf() for child in (*positional.children(), *keywords.children())):
        return ()
    names = [*(None for _ in positional.children()), *keywords.context]
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    specs = []
    for name, node in zip(names, exported.graph_signature.user_inputs, strict=True):
        value = nodes[node].meta["val"] if isinstance(node, str) and node in nodes else None
        dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
        shape = tuple(getattr(value, "shape", ()))
        if value is None or dtype not in DTYPES or not all(isinstance(size, int) for size in shape):
            return ()
        specs.append(InputSpec(name, shape, dtype, as_kwarg=name is not None))  # type: ignore[arg-type]
    return tuple(specs)
