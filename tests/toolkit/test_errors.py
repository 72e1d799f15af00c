from __future__ import annotations

import pickle

import pytest

from mvtool import errors
from mvtool.errors import MissingExtraError, MvtoolError

PLAIN = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, MvtoolError)]


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind is not MissingExtraError])
def test_errors_come_back_from_other_processes(kind: type[MvtoolError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what failed, and what to do")))
    assert (type(again), str(again)) == (kind, "what failed, and what to do")


def test_a_missing_package_is_still_named() -> None:
    error = MissingExtraError("av", "video", "to decode video")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.package, again.extra) == (MissingExtraError, str(error), "av", "video")
