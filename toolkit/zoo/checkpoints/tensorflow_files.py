"""Reading TensorFlow checkpoints and SavedModels. TensorFlow is imported only when such a file is read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvtool.errors import WeightsError
from mvtool.extras import require

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter", "global_step", "optimizer/", "keras_api/")
_SLOT = "/.OPTIMIZER_SLOT/"
_PURPOSE = "to read TensorFlow weights"


def files_of(path: Path) -> list[Path]:
    """Index and data files of the checkpoint at `path` (prefix, .index file or folder); empty if there is none."""
    prefix = prefix_of(path)
    index = prefix.with_name(prefix.name + ".index")
    return [*sorted(prefix.parent.glob(prefix.name + ".data-*")), index] if index.is_file() else []


def prefix_of(path: Path) -> Path:
    """The prefix TensorFlow wants; a folder must hold exactly one checkpoint, or a `checkpoint` file naming the latest."""
    if path.is_dir():
        indices = sorted(path.glob("*.index"))
        if len(indices) > 1:
            latest = require("tensorflow", _PURPOSE).train.latest_checkpoint(str(path))
            if latest is not None:
                return Path(latest)
            names = ", ".join(index.stem for index in indices)
            raise WeightsError(f"{path} holds several checkpoints ({names}); give the path of one without .index.")
        return indices[0].with_suffix("") if indices else path
    return path.with_suffix("") if path.suffix == ".index" else path


def read_checkpoint(prefix: Path) -> dict[str, Tensor]:
    """All weights of a checkpoint by object path, without the `.ATTRIBUTES` tail.

    Optimizer slots, counters and the object graph are left out.

    Raises:
        WeightsError: The files are damaged.
        MissingExtraError: TensorFlow is not installed.
    """
    tensorflow = require("tensorflow", _PURPOSE)
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        keys = sorted(key for key in reader.get_variable_to_shape_map() if _is_weight(key))
        return {key.removesuffix(SUFFIX): _tensor(reader.get_tensor(key)) for key in keys}
    except (tensorflow.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise WeightsError(
            f"The TensorFlow checkpoint {prefix} cannot be read: {str(error).partition(chr(10))[0]}. "
            "Copy its .index and all .data files again."
        ) from error


def read_saved_model(folder: Path) -> dict[str, Tensor]:
    """All weights of a SavedModel.

    A Keras SavedModel stores its weights as `variables/0`, `variables/1`, ... Their names are in the object graph
    of `saved_model.pb`; a name that occurs several times gets the suffix `#0`, `#1`, ... in order of the variables.
    Other SavedModels keep object paths as keys.

    Raises:
        WeightsError: The files are damaged.
        MissingExtraError: TensorFlow is not installed.
    """
    tensors = read_checkpoint(folder / "variables" / "variables")
    numbered = {int(key.split("/")[1]): key for key in tensors if _is_numbered(key)}
    if not numbered:
        return tensors
    names = _variable_names(folder / "saved_model.pb")
    count = Counter(names.get(i, "") for i in numbered)
    seen: Counter[str] = Counter()
    result: dict[str, Tensor] = {}
    for i, key in sorted(numbered.items()):
        name = names.get(i)
        if name is None:
            raise WeightsError(f"{folder}/saved_model.pb names no variable {i}, though the weights hold {key!r}.")
        result[f"{name}#{seen[name]}" if count[name] > 1 else name] = tensors[key]
        seen[name] += 1
    return result


def _is_numbered(key: str) -> bool:
    parts = key.split("/")
    return len(parts) == 2 and parts[0] == "variables" and parts[1].isdigit()


def _variable_names(file: Path) -> dict[int, str]:
    """Position in the root's `variables` list to variable name without `:0`."""
    proto = require("tensorflow.core.protobuf.saved_model_pb2", _PURPOSE)
    model = proto.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
        nodes = model.meta_graphs[0].object_graph_def.nodes
        children = {child.local_name: child.node_id for child in nodes[0].children}
        listed = nodes[children["variables"]].children
        return {
            int(c.local_name): nodes[c.node_id].variable.name.partition(":")[0]
            for c in listed
            if c.local_name.isdigit()
        }
    except Exception as error:  # protobuf's DecodeError is not importable without naming another package
        raise WeightsError(
            f"{file} holds no readable object graph with a list `variables`: {error!r}. Copy the SavedModel again."
        ) from error


def _is_weight(key: str) -> bool:
    return not key.startswith(_BOOKKEEPING) and _SLOT not in key and not key.startswith("model/optimizer/")


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.copy()) if getattr(array, "ndim", 0) else torch.tensor(array)
