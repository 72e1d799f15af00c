"""Runs the jobs of a GitHub Actions workflow on this machine, as far as docs/ci/mvtool-bench.yml needs it.

Scripts run in bash with the words that GitHub documents for `shell: bash`. Three actions are known, by what they do with
files; any other, and any key or expression that is not known, is an error, so that nothing is passed over.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax, jobs.<job_id>.steps[*].shell."""

_TOKEN = re.compile(r"\s*('[^']*'|\|\||&&|==|!=|!|\(|\)|[A-Za-z_][\w.-]*)")
_OPERATORS = {"||": " or ", "&&": " and ", "!": " not ", "==": "==", "!=": "!=", "(": "(", ")": ")"}


def evaluate(expression: str, contexts: Mapping[str, Any]) -> Any:
    """Value of an expression; a property that is missing is null, a context that is missing is an error."""
    python, at = "", 0
    while at < len(expression.rstrip()):
        token = _TOKEN.match(expression, at)
        assert token is not None, f"cannot read {expression[at:]!r}"
        word, at = token[1], token.end()
        python += _OPERATORS.get(word) or repr(word[1:-1] if word.startswith("'") else look_up(word, contexts))
    return eval(python)  # built above from literals and operators alone


def look_up(name: str, contexts: Mapping[str, Any]) -> Any:
    first, *rest = name.split(".")
    value: Any = contexts[first]
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def expand(text: object, contexts: Mapping[str, Any]) -> str:
    """The text with its `${{ }}` replaced; null becomes nothing."""
    if isinstance(text, bool):
        return str(text).lower()

    def value(found: re.Match[str]) -> str:
        got = evaluate(found[1], contexts)
        return "" if got is None else str(got).lower() if isinstance(got, bool) else str(got)

    return re.sub(r"\$\{\{(.*?)\}\}", value, str(text))


def holds(condition: object, contexts: Mapping[str, Any]) -> bool:
    """Whether an `if:` holds; the braces may be left out there."""
    text = str(condition).strip()
    inner = re.fullmatch(r"\$\{\{(.*)\}\}", text)
    return bool(evaluate(inner[1] if inner else text, contexts))


@dataclass
class Run:
    """One run of a workflow.

    Attributes:
        source: What `actions/checkout` gives.
        folder: Place for the folders of the jobs.
        artifacts: Place for artifacts, by name; it may hold some of earlier runs.
        environment: Variables of the machine, before those of the workflow.
        github: The `github` context.
        inputs: The `inputs` context.
        variables: The `vars` context.
        statuses: Exit status of every script that ran, by job and step.
        skipped: Steps whose condition did not hold.
        summary: What the scripts wrote to the summary.
        log: What they printed.
    """

    source: Path
    folder: Path
    artifacts: Path
    environment: dict[str, str]
    github: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    statuses: dict[tuple[str, str], int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    summary: str = ""
    log: str = ""

    def workflow(self, workflow: Mapping[str, Any]) -> bool:
        """Run all jobs, each after those that it needs; whether all succeeded."""
        done: dict[str, bool] = {}
        for name, job in workflow["jobs"].items():
            needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            assert set(needs) <= set(done), f"{name} comes before a job that it needs"
            if all(done[need] for need in needs) and holds(job.get("if", "!''"), self.contexts({})):
                done[name] = self.job(name, job, workflow)
            else:
                done[name] = False
        return all(done.values())

    def contexts(self, steps: Mapping[str, Any]) -> dict[str, Any]:
        return {"github": self.github, "inputs": self.inputs, "vars": self.variables, "steps": steps}

    def job(self, name: str, job: Mapping[str, Any], workflow: Mapping[str, Any]) -> bool:
        """Run the steps of a job in a new folder until one fails; whether none did."""
        assert workflow["defaults"] == {"run": {"shell": "bash"}}
        place = self.folder / name
        temporary = self.folder / f"{name}-temporary"
        place.mkdir(parents=True)
        temporary.mkdir()
        steps: dict[str, Any] = {}
        environment = {**self.environment, "RUNNER_TEMP": str(temporary)}
        for scope in (workflow, job):
            environment |= {key: expand(value, self.contexts(steps)) for key, value in scope.get("env", {}).items()}
        for step in job["steps"]:
            label = step.get("name", step.get("uses"))
            if not holds(step.get("if", "!''"), self.contexts(steps)):
                self.skipped.append(label)
            elif "uses" in step:
                settings = {key: expand(value, self.contexts(steps)) for key, value in step.get("with", {}).items()}
                self.action(step["uses"], settings, place)
            else:
                own = {key: expand(value, self.contexts(steps)) for key, value in step.get("env", {}).items()}
                status = self.script(step, {**environment, **own}, environment, place, steps)
                self.statuses[name, label] = status
                if status:
                    return False
        return True

    def action(self, name: str, settings: Mapping[str, str], place: Path) -> None:
        if name == "actions/checkout@v4":
            shutil.copytree(self.source, place, dirs_exist_ok=True)
        elif name == "actions/upload-artifact@v4":
            source, target = place / settings["path"], self.artifacts / settings["name"]
            assert source.exists(), f"nothing to upload at {source}"
            # An artifact of that name belongs to an earlier run.
            shutil.rmtree(target, ignore_errors=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                target.mkdir()
                shutil.copy(source, target)
        elif name == "actions/download-artifact@v4":
            shutil.copytree(self.artifacts / settings["name"], place / settings["path"])
        else:
            raise AssertionError(f"the action {name} is not known here")

    def script(
        self,
        step: Mapping[str, Any],
        environment: dict[str, str],
        lasting: dict[str, str],
        place: Path,
        steps: dict[str, Any],
    ) -> int:
        """Run one script; its additions to PATH go into `lasting`, its outputs into `steps`."""
        assert "${{" not in step["run"], "an expression in a script lets its value be executed; pass it through env"
        files = {name: self.folder / name for name in ("GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        words = [*BASH, "-c", step["run"]]
        variables = {**environment, **{name: str(path) for name, path in files.items()}}
        result = subprocess.run(words, cwd=place, env=variables, capture_output=True, text=True, check=False)
        self.log += f"--- {step['name']}: {result.returncode}\n{result.stdout}{result.stderr}"
        for line in files["GITHUB_PATH"].read_text().splitlines():
            lasting["PATH"] = line + os.pathsep + lasting["PATH"]
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        if "id" in step:
            steps[step["id"]] = {"outputs": outputs}
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        return result.returncode
