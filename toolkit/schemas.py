"""The published JSON Schemas of the documents that mvtool writes, for readers that are not mvtool.

    python -m mvtool.schemas [folder]      write them anew, after a change of the models

They ship as `mvtool/data/*.schema.json`; a test compares them with the models they are generated from.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mvtool.bench.record import BENCH_SCHEMA, Record
from mvtool.build import BUILD_SCHEMA, BuildManifest
from mvtool.errors import UsageError
from mvtool.evaluation.result import EVALUATION_SCHEMA, Evaluation
from mvtool.files import write_atomic
from mvtool.ports import PORTS_SCHEMA, PortManifest
from mvtool.profiling.record import PROFILE_SCHEMA, Profiles
from mvtool.quantization.sensitivity import SENSITIVITY_SCHEMA, Sensitivity
from mvtool.quantization.state_ranges import STATE_RANGES_SCHEMA, StateRanges

_MODELS: dict[str, type[BaseModel]] = {
    PORTS_SCHEMA: PortManifest,
    BUILD_SCHEMA: BuildManifest,
    BENCH_SCHEMA: Record,
    EVALUATION_SCHEMA: Evaluation,
    STATE_RANGES_SCHEMA: StateRanges,
    SENSITIVITY_SCHEMA: Sensitivity,
    PROFILE_SCHEMA: Profiles,
}
FILE_OF_SCHEMA = {
    PORTS_SCHEMA: "ports-1.schema.json",
    BUILD_SCHEMA: "build-1.schema.json",
    BENCH_SCHEMA: "bench-1.schema.json",
    EVALUATION_SCHEMA: "evaluation-1.schema.json",
    STATE_RANGES_SCHEMA: "state-ranges-1.schema.json",
    SENSITIVITY_SCHEMA: "sensitivity-1.schema.json",
    PROFILE_SCHEMA: "profile-1.schema.json",
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def generate(schema: str) -> dict[str, Any]:
    """The JSON Schema called `schema`, for example `mvtool.ports/1`, from its model.

    Raises:
        UsageError: There is no such schema.
    """
    model = _MODELS.get(schema)
    if model is None:
        raise UsageError(f"There is no schema {schema!r}; there are: {', '.join(_MODELS)}.")
    return {"$schema": _DIALECT, **model.model_json_schema(by_alias=True, mode="validation")}


def published(schema: str) -> dict[str, Any]:
    """The JSON Schema that ships with this version of mvtool.

    Raises:
        UsageError: There is no such schema.
    """
    if schema not in FILE_OF_SCHEMA:
        raise UsageError(f"There is no schema {schema!r}; there are: {', '.join(FILE_OF_SCHEMA)}.")
    text = (files("mvtool") / "data" / FILE_OF_SCHEMA[schema]).read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def write(folder: Path) -> None:
    """Write all schemas into `folder`."""
    for schema, name in FILE_OF_SCHEMA.items():
        write_atomic(folder / name, (json.dumps(generate(schema), indent=2) + "\n").encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(files("mvtool") / "data")))
