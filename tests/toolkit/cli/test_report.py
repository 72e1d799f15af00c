from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench_records
import pytest
from click.testing import CliRunner, Result

from mvtool.bench import report_html
from mvtool.cli.report import command
from mvtool.errors import ManifestError, UsageError


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records, and plain text instead of the page, whose making has tests of its own."""
    for number in (1, 2):
        bench_records.record(base_ms=10.0 * number, seed=number, artifact=str(number), invokes=20).save(
            tmp_path / f"r{number}.json"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_html, "page", lambda report: f"page of {len(report.entries)}\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_page_is_written_and_named(tmp_path: Path) -> None:
    result = run("r1.json", "r2.json", "-o", "deep/page.html")
    assert result.exit_code == 0
    assert result.output == "wrote deep/page.html (2 records, 0.0 KiB)\n"
    assert (tmp_path / "deep/page.html").read_text() == "page of 2\n"
    assert names(tmp_path / "deep") == {"page.html"}


def test_the_page_has_a_usual_name(tmp_path: Path) -> None:
    assert run("r1.json").output.startswith("wrote report.html (1 record, ")
    assert (tmp_path / "report.html").is_file()


def test_markdown_goes_to_the_terminal_or_to_a_file(tmp_path: Path) -> None:
    shown = run("r1.json", "--markdown").output
    assert shown.startswith("### Benchmark\n")
    assert run("r1.json", "--markdown", "-o", "comment.md").exit_code == 0
    assert (tmp_path / "comment.md").read_text() == shown
    assert names(tmp_path) == {"r1.json", "r2.json", "comment.md"}


def test_json_is_all_that_is_printed_and_writes_only_what_was_asked_for(tmp_path: Path) -> None:
    told = json.loads(run("r2.json", "--base", "r1.json", "--json").output)
    assert [(row["file"], row["baseline"]) for row in told["records"]] == [("r1.json", True), ("r2.json", False)]
    assert told["comparison"]["worse"] is True
    assert names(tmp_path) == {"r1.json", "r2.json"}
    assert json.loads(run("r1.json", "--json", "-o", "page.html").output)["schema"] == "mvtool.report/1"
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize("content", [None, "", "{}", '{"schema": "mvtool.bench/2"}', "\x00"])
def test_what_is_no_record_is_named_and_nothing_is_written(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    before = names(tmp_path)
    result = run("r1.json", "bad.json", "-o", "page.html")
    assert isinstance(result.exception, UsageError if content is None else ManifestError)
    assert "bad.json" in str(result.exception)
    assert names(tmp_path) == before


@pytest.mark.parametrize("target", ["r1.json", "./r2.json", "new.json", "NEW.JSON"])
def test_no_record_is_overwritten(tmp_path: Path, target: str) -> None:
    before = (tmp_path / "r1.json").read_bytes()
    result = run("r1.json", "--base", "r2.json", "-o", target)
    assert isinstance(result.exception, UsageError)
    assert "never overwritten" in str(result.exception)
    assert (tmp_path / "r1.json").read_bytes() == before
    assert names(tmp_path) == {"r1.json", "r2.json"}


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("old")

    def broken(report: object) -> str:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(report_html, "page", broken)
    assert isinstance(run("r1.json").exception, RuntimeError)
    assert (tmp_path / "report.html").read_text() == "old"


def test_folders_are_taken(tmp_path: Path) -> None:
    for side, number in (("base", 1), ("new", 2)):
        (tmp_path / side).mkdir()
        (tmp_path / f"r{number}.json").rename(tmp_path / side / f"r{number}.json")
    told = json.loads(run("new", "--base", "base", "--json").output)
    assert [(row["file"], row["baseline"]) for row in told["records"]] == [("r1.json", True), ("r2.json", False)]


def test_a_record_on_both_sides_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    result = run("r1.json", "r2.json", "--base", "r1.json")
    assert isinstance(result.exception, UsageError)
    assert "r1.json" in str(result.exception)
    assert names(tmp_path) == {"r1.json", "r2.json"}


def test_bounds_and_what_may_differ_are_those_of_compare(tmp_path: Path) -> None:
    bench_records.record(base_ms=10.0, seed=3, artifact="3", invokes=20, threads=2).save(tmp_path / "r3.json")

    def verdicts(*options: str) -> Any:
        return json.loads(run("r3.json", "--base", "r1.json", "--json", *options).output)

    assert "threads" in verdicts()["refusals"][0]["reason"]
    (compared,) = verdicts("--allow", "threads", "--threshold", "first=7%")["comparison"]["comparisons"]
    assert (compared["metrics"]["first"]["gated"], compared["metrics"]["first"]["threshold_percent"]) == (True, 7.0)


@pytest.mark.parametrize("options", [("--threshold", "first"), ("--threshold", "speed=3"), ("--allow", "anything")])
def test_unknown_bounds_and_words_are_usage_errors(options: tuple[str, ...]) -> None:
    assert isinstance(run("r2.json", "--base", "r1.json", *options).exception, UsageError)


def test_no_files_is_a_usage_error() -> None:
    assert isinstance(run().exception, UsageError)
