"""docs/ci.md holds the workflow that is beside it, GitHub would accept it, and its scripts do what the guide says.

The slow test runs every script in bash with the real mvtool. Stand-ins: `gh`, the phone (`MVTOOL_DEVICE=host`), and the
three actions that move files. The package that `pip` is asked for is one that is installed already.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]
from motion_model import MODEL
from workflow_runner import Run, evaluate, expand, holds

from mvtool.errors import ManifestError

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
FILE = (ROOT / "docs" / "ci" / "mvtool-bench.yml").read_text(encoding="utf-8")
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE)

TEXTS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
PERMISSIONS = {
    "type": "object",
    "propertyNames": {"enum": ["actions", "contents", "pull-requests"]},
    "additionalProperties": {"enum": ["read", "write", "none"]},
}
STEP = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "id": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"},
        "if": {"type": "string"},
        "env": TEXTS,
        "run": {"type": "string"},
        "uses": {"type": "string", "pattern": "^actions/[a-z-]+@v[0-9]+$"},
        "with": TEXTS,
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["uses"]}, {"required": ["run", "name"], "not": {"required": ["with"]}}],
}
JOB = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "if": {"type": "string"},
        "needs": {"type": "string"},
        "runs-on": {"type": ["string", "array"], "items": {"type": "string"}},
        "timeout-minutes": {"type": "integer", "minimum": 1, "maximum": 360},
        "permissions": PERMISSIONS,
        "env": TEXTS,
        "steps": {"type": "array", "items": STEP, "minItems": 1},
    },
    "required": ["runs-on", "steps", "timeout-minutes"],
    "additionalProperties": False,
}
SCHEMA = {
    # The part of https://json.schemastore.org/github-workflow.json that the file uses, without the rest.
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "on": {
            "type": "object",
            "properties": {
                "pull_request": {"type": "null"},
                "push": {"type": "object", "properties": {"branches": {"type": "array"}}, "required": ["branches"]},
                "schedule": {
                    "type": "array",
                    "items": {"properties": {"cron": {"pattern": r"^(\S+ ){4}\S+$"}}, "required": ["cron"]},
                },
                "workflow_dispatch": {
                    "type": "object",
                    "required": ["inputs"],
                    "additionalProperties": False,
                    "properties": {"inputs": {"type": "object"}},
                },
            },
            "additionalProperties": False,
        },
        "permissions": PERMISSIONS,
        "defaults": {"const": {"run": {"shell": "bash"}}},
        "env": TEXTS,
        "jobs": {"type": "object", "additionalProperties": JOB, "minProperties": 1},
    },
    "required": ["on", "jobs", "permissions"],
    "additionalProperties": False,
}


def named() -> dict[Any, Any]:
    """The workflow with the key `on`, which YAML 1.1 reads as true."""
    return {"on" if key is True else key: value for key, value in WORKFLOW.items()}


def test_the_guide_holds_the_file() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert FILE in blocks


def test_the_file_has_the_structure_that_github_accepts() -> None:
    jsonschema.validate(named(), SCHEMA)
    jobs = WORKFLOW["jobs"]
    for job in jobs.values():
        assert {job.get("needs")} <= {None, *jobs}


def test_the_schema_refuses_a_wrong_key() -> None:
    broken = named()
    broken["jobs"] = {**broken["jobs"], "more": {"runs-on": "x", "timeout-minutes": 1, "steps": [{"runs": "true"}]}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_only_the_job_that_comments_may_write() -> None:
    writers = {name for name, job in WORKFLOW["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert writers == {"compare"}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["compare"]["runs-on"] != WORKFLOW["jobs"]["bench"]["runs-on"]


def test_the_guide_names_every_variable_and_verdict() -> None:
    for name in WORKFLOW["env"]:
        assert f"`{name}`" in GUIDE
    for code in (13, 14, 15, 16, 17):
        assert re.search(rf"^\| {code} \|", GUIDE, flags=re.MULTILINE), code


def test_expressions_as_github_evaluates_them() -> None:
    contexts = {"github": {"event_name": "push", "event": {}}, "vars": {}, "inputs": {"renew": True}}
    assert evaluate("vars.A || 'x y'", contexts) == "x y"
    assert expand("a ${{ github.event_name }} ${{ github.event.pull_request.number }}", contexts) == "a push "
    assert not holds("${{ !inputs.renew }}", contexts)
    assert holds("github.event_name != 'pull_request' && github.event_name == 'push'", contexts)
    with pytest.raises(KeyError):
        evaluate("secrets.TOKEN", contexts)


GH = """#!{python}
# Keeps its words and the texts that they name, and answers as GitHub would for the artifacts that are there.
import json, os, pathlib, shutil, sys
place, words = pathlib.Path({place!r}), sys.argv[1:]
assert os.environ["GH_TOKEN"] and os.environ["GH_REPO"] == "owner/models"
text = [pathlib.Path(w.removeprefix("body=@")).read_text() for w in words if w.endswith("bench/comment.md")]
with open(place / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([words, *text]) + "\\n")
if "actions/artifacts?name=mvtool-baseline" in words[1]:
    print("4711" if (place / "artifacts/mvtool-baseline").is_dir() else "", end="")
elif words[:2] == ["run", "download"]:
    assert words[2:] == ["4711", "--name", "mvtool-baseline", "--dir", "bench/base"]
    shutil.copytree(place / "artifacts/mvtool-baseline", "bench/base")
elif words[0] == "api" and words[-2] == "--jq":
    print((place / "comment").read_text() if (place / "comment").exists() else "", end="")
elif words[:2] != ["pr", "comment"] and "PATCH" not in words:
    sys.exit("unexpected: " + " ".join(words))
"""


class Repository:
    """A repository with a small model, a GitHub that keeps artifacts, and a machine that runs its jobs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.runs = 0
        self.source = place / "source"
        self.source.mkdir()
        (self.source / "motion.py").write_text(MODEL)
        (place / "artifacts").mkdir()
        tools = place / "tools"
        tools.mkdir()
        (tools / "gh").write_text(GH.format(python=sys.executable, place=str(place)))
        (tools / "gh").chmod(0o755)
        path = os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment = {**os.environ, "PATH": path}
        # A venv is made of the interpreter's own; nothing may be fetched.
        self.environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(self, event: str, *only: str, **inputs: bool) -> tuple[Run, bool]:
        """Run the workflow; the run, and whether it succeeded.

        Args:
            event: What triggers it.
            only: Jobs to run again on the artifacts that are there, without their installation.
            inputs: Of a run that is started by hand.
        """
        self.runs += 1
        pull = {"number": 7, "head": {"sha": "abc123", "repo": {"full_name": "owner/models"}}}
        run = Run(
            source=self.source,
            folder=self.place / f"run{self.runs}",
            artifacts=self.place / "artifacts",
            environment=self.environment,
            github={
                "event_name": event,
                "event": {"pull_request": pull} if event == "pull_request" else {},
                "repository": "owner/models",
                "ref": "refs/pull/7/merge" if event == "pull_request" else "refs/heads/main",
                "sha": "def456",
                "run_id": 99,
                "server_url": "https://github.com",
                "token": "secret",
            },
            inputs=inputs,
            variables={
                "MVTOOL_PACKAGE": "pip",
                "MVTOOL_CONVERT": "motion:make --input 1x3x32x32 --target tflite",
                "MVTOOL_DEVICE": "host",
                "MVTOOL_BENCH": "--quick",
            },
        )
        jobs = WORKFLOW["jobs"]
        if only:
            jobs = {name: {**jobs[name], "needs": [n for n in only if n == jobs[name]["needs"]]} for name in only}
            for job in jobs.values():
                job["steps"] = [step for step in job["steps"] if step.get("name") != "Install"]
        return run, run.workflow({**WORKFLOW, "jobs": jobs})

    def calls(self) -> list[list[Any]]:
        """What `gh` was told since the last call: words, then the comment."""
        path = self.place / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def record(self, artifact: str) -> tuple[Path, dict[str, Any]]:
        (path,) = (self.place / "artifacts" / artifact).glob("*.json")
        return path, json.loads(path.read_text())

    def scale_baseline(self, factor: float) -> None:
        """Make the baseline of the new records, every timed invoke `factor` times as long, as from an earlier session."""
        source, record = self.record("mvtool-records")
        target = self.place / "artifacts" / "mvtool-baseline"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        record |= {"id": "0" * 32, "session": "1" * 32}
        for launch in record["launches"]:
            samples = launch["samples"]
            for column in ("start_ns", "input_ns", "inference_ns", "state_ns", "output_ns"):
                samples[column] = [round(value * factor) for value in samples[column]]
        (target / source.name).write_text(json.dumps(record))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """After the first run on main, which had no baseline."""
    made = Repository(tmp_path_factory.mktemp("ci"))
    run, succeeded = made.run("push")
    assert succeeded, run.log
    assert "There is no baseline to compare with." in run.summary
    assert run.skipped == ["Comment on the pull request"]
    return made


@pytest.mark.slow
def test_the_first_run_on_main_makes_the_baseline(repository: Repository) -> None:
    _, record = repository.record("mvtool-baseline")
    assert record["schema"] == "mvtool.bench/1"
    assert record["device"]["kind"] == "host"
    assert record["extra"] == {"commit": "def456"}
    (report,) = (repository.place / "artifacts" / "mvtool-report").iterdir()
    assert report.read_text().lstrip().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_pull_request_is_measured_compared_and_told(repository: Repository) -> None:
    before = repository.record("mvtool-baseline")
    repository.calls()
    run, succeeded = repository.run("pull_request", "bench", "compare")
    # The same model on the same machine; the machine may be disturbed, the workflow has to follow the verdict in any case.
    slower = run.statuses.get(("compare", "Fail if something is slower or larger")) == 16
    assert succeeded == (not slower), run.log
    listed, downloaded, looked, (words, comment) = repository.calls()
    assert listed[0][:2] == ["api", "repos/owner/models/actions/artifacts?name=mvtool-baseline&per_page=100"]
    assert downloaded[0][:2] == ["run", "download"]
    assert looked[0][:3] == ["api", "--paginate", "repos/owner/models/issues/7/comments"]
    assert words == ["pr", "comment", "7", "--body-file", "bench/comment.md"]
    assert comment.startswith("<!-- mvtool bench -->\n")
    assert "[Report and records](https://github.com/owner/models/actions/runs/99)" in comment
    assert run.summary.strip() in comment
    # A pull request never becomes the baseline.
    assert repository.record("mvtool-baseline") == before
    assert repository.record("mvtool-records")[1]["extra"] == {"commit": "abc123"}


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "status"), [(0.25, 16), (4.0, 0)], ids=["slower", "faster"])
def test_the_verdict_decides(repository: Repository, factor: float, status: int) -> None:
    repository.scale_baseline(factor)
    (repository.place / "comment").write_text("31\n30\n")
    repository.calls()
    run, succeeded = repository.run("pull_request", "compare")
    (repository.place / "comment").unlink()
    assert succeeded == (status == 0), run.log
    assert run.statuses["compare", "Fail if something is slower or larger"] == status
    words, comment = repository.calls()[-1]
    # The comment of the last run is replaced, also by the run that fails.
    assert words[:4] == ["api", "--silent", "--method", "PATCH"]
    assert words[4] == "repos/owner/models/issues/comments/31"
    assert ("slower" if status else "faster") in comment


@pytest.mark.slow
def test_main_keeps_its_baseline_when_it_got_slower_until_it_is_renewed(repository: Repository) -> None:
    repository.scale_baseline(0.25)
    kept = repository.record("mvtool-baseline")
    run, succeeded = repository.run("push", "compare")
    assert not succeeded, run.log
    assert repository.record("mvtool-baseline") == kept
    run, succeeded = repository.run("workflow_dispatch", "compare", renew=True)
    assert succeeded, run.log
    assert repository.record("mvtool-baseline")[1] == repository.record("mvtool-records")[1]


@pytest.mark.slow
def test_an_error_is_no_verdict(repository: Repository) -> None:
    repository.scale_baseline(1.0)
    path, _ = repository.record("mvtool-baseline")
    path.write_text("{}")
    repository.calls()
    run, succeeded = repository.run("pull_request", "compare")
    assert not succeeded
    assert run.statuses["compare", "Compare"] == 0, run.log
    assert run.statuses["compare", "Fail if something is slower or larger"] == ManifestError.exit_code
    words, comment = repository.calls()[-1]
    assert words[:2] == ["pr", "comment"]
    assert f"`mvtool compare` ended with {ManifestError.exit_code}:\n\n```\n" in comment
    assert path.name in comment
    assert run.summary.strip() in comment
