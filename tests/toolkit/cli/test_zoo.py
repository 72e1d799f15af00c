from __future__ import annotations

import json

from click.testing import CliRunner

from mvtool.cli.zoo import command
from mvtool.errors import UsageError
from mvtool.zoo import registry


def test_the_table_lists_every_model() -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == len(registry.entries()) + 1
    (a0,) = [line for line in lines if line.startswith("movinet_a0_stream ")]
    assert "3,748,031" in a0
    assert "172x172" in a0


def test_json() -> None:
    records = json.loads(CliRunner().invoke(command, ["movinet_a?_stream", "--json"]).output)
    assert [r["name"] for r in records][:3] == ["movinet_a0_stream", "movinet_a1_stream", "movinet_a2_stream"]
    assert records[0]["parameters"] == 3_748_031
    assert (records[0]["resolution"], records[0]["frame_rate"], records[0]["labels"]) == (172, 5.0, "kinetics600")


def test_a_pattern_without_match() -> None:
    result = CliRunner().invoke(command, ["alexnet*"])
    assert isinstance(result.exception, UsageError)
    assert "No model of the zoo is called 'alexnet*'" in str(result.exception)
