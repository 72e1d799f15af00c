"""The published JSON Schemas are those of the models, and documents fit them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from bench_records import record
from manifests import build_manifest, port_manifest

from mvtool.bench.record import BENCH_SCHEMA
from mvtool.build import BUILD_SCHEMA
from mvtool.errors import UsageError
from mvtool.ports import PORTS_SCHEMA
from mvtool.schemas import FILE_OF_SCHEMA, generate, published, write


@pytest.mark.parametrize("schema", FILE_OF_SCHEMA)
def test_published_schema_is_the_generated_one(schema: str) -> None:
    assert published(schema) == generate(schema), "run: python -m mvtool.schemas"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (PORTS_SCHEMA, port_manifest().to_json()),
        (BUILD_SCHEMA, build_manifest().to_json()),
        (BENCH_SCHEMA, record().model_dump_json(by_alias=True)),
    ],
    ids=["ports", "build", "bench"],
)
def test_documents_fit_and_an_unknown_key_does_not(schema: str, text: str) -> None:
    document = json.loads(text)
    jsonschema.validate(document, published(schema))
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate({**document, "surprise": 1}, published(schema))


def test_an_unknown_schema_is_refused() -> None:
    for lookup in (generate, published):
        with pytest.raises(UsageError, match=r"mvtool\.ports/1"):
            lookup("mvtool.ports/2")


def test_write_makes_all_files(tmp_path: Path) -> None:
    write(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == set(FILE_OF_SCHEMA.values())
