"""What README.md promises is so: its exit codes, its commands and its Python examples."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mvtool import errors
from mvtool.cli import INTERRUPTED, cli, compare
from mvtool.errors import MvtoolError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `mvtool ...` line of the shell blocks, as words."""
    lines = [line.strip() for block in blocks("sh") for line in block.splitlines()]
    return [line.replace(".venv/bin/", "").split()[1:] for line in lines if re.match(r"(\.venv/bin/)?mvtool ", line)]


def test_exit_codes_are_those_of_the_error_tree() -> None:
    rows = re.findall(r"^\| (\d+) \|(?: `(\w+)`)? \|", README, flags=re.MULTILINE)
    table = {int(code): name for code, name in rows}
    tree = {
        error.exit_code: error.__name__
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, MvtoolError)
    }
    signals = {128 + signal.SIGHUP: "", INTERRUPTED: "", 128 + signal.SIGTERM: ""}
    verdicts = {compare.WORSE: "", compare.INCONCLUSIVE: ""}
    assert table == {0: "", **tree, **verdicts, **signals}


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words))
def test_commands_and_their_options_exist(words: list[str]) -> None:
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    extras = (ROOT / "setup.cfg").read_text(encoding="utf-8").partition("[options.extras_require]")[2]
    for extra in re.findall(r"\.\[(\w+)\]", README):
        assert re.search(rf"^{extra} =", extras, flags=re.MULTILINE), extra


def test_ci_runs_the_test_command() -> None:
    assert "make test" in blocks("sh")[0]
    assert "\nmake test PYTEST_ARGS=" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_pictures_and_links_exist_and_are_small() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(targets) >= 4
    for target in targets:
        assert (ROOT / target).exists(), target
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).stat().st_size < 300_000


@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_examples_parse(index: int) -> None:
    compile(blocks("python")[index], f"README.md example {index + 1}", "exec")


@pytest.mark.slow
def test_python_examples_run(tmp_path: Path) -> None:
    (tmp_path / "examples.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    result = subprocess.run([sys.executable, "examples.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Motion_fp32.tflite" in result.stdout
    assert "LiteRT" in result.stdout
    assert result.stdout.count(" s: class ") == 3
