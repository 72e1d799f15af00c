"""The three functions that the command line calls are attributes of the package."""

from __future__ import annotations

import pytest

import mvtool
from mvtool.converters import pipeline
from mvtool.runtimes import open_artifact
from mvtool.verification.verify import verify


def test_the_public_functions_are_the_real_ones() -> None:
    assert mvtool.convert is pipeline.convert
    assert mvtool.open is open_artifact
    assert mvtool.verify is verify


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'mvtool' has no attribute 'convrt'"):
        mvtool.convrt  # noqa: B018
