from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_session import FakeSession, manifest
from matplotlib.axes import Axes
from PIL import Image
from sample_videos import encode

from mvtool import plotting, running
from mvtool.errors import UsageError


def run(tmp_path: Path, untrained: bool = False, frames: int = 20) -> tuple[running.RunHeader, plotting.Timeline]:
    clip = encode(tmp_path / "clip.mp4", frames, size=(60, 80))
    result = running.run(FakeSession(manifest(untrained=untrained)), clip, frame_rate=10)
    timeline = plotting.Timeline()
    for step in result.steps:
        timeline.add(step)
    return result.header, timeline


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_picture_is_written(tmp_path: Path) -> None:
    plotting.plot(*run(tmp_path), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size[0] > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 50


def test_lines_are_the_probabilities_of_the_leaders(tmp_path: Path) -> None:
    header, timeline = run(tmp_path)
    figure = plotting._figure(header, timeline, classes=3)
    lines = figure.axes[-1].lines
    assert len(lines) == 3
    expected = np.stack(timeline.probabilities)[:, 5] * 100
    np.testing.assert_allclose(np.asarray(lines[0].get_ydata()), expected)
    np.testing.assert_allclose(np.asarray(lines[0].get_xdata()), timeline.times_s)
    assert str(lines[0].get_label()).startswith("class 5")


def test_thumbnails_carry_their_time(tmp_path: Path) -> None:
    header, timeline = run(tmp_path)
    figure = plotting._figure(header, timeline, classes=3)
    shown = [axes.get_title() for axes in figure.axes[:-1]]
    assert shown[0] == "0.0 s"
    assert shown[-1] == "1.9 s"
    assert len(shown) == plotting.THUMBNAILS


@pytest.mark.parametrize("untrained", [True, False])
def test_untrained_weights_are_written_across(tmp_path: Path, untrained: bool) -> None:
    figure = plotting._figure(*run(tmp_path, untrained), classes=3)
    assert ("untrained weights" in texts(figure.axes[-1])) is untrained
    title = figure.get_suptitle()
    assert title.endswith("untrained weights") is untrained


def test_thumbnails_stay_bounded_and_spread(tmp_path: Path) -> None:
    _, timeline = run(tmp_path, frames=200)
    assert len(timeline.times_s) == 200
    times = [time_s for time_s, _ in timeline.thumbnails]
    assert plotting.THUMBNAILS <= len(times) <= 4 * plotting.THUMBNAILS
    assert len(set(np.diff(times).round(6))) == 1
    assert times[-1] > 15


def test_one_step_is_enough(tmp_path: Path) -> None:
    plotting.plot(*run(tmp_path, frames=1), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_no_step_is_refused(tmp_path: Path) -> None:
    header, _ = run(tmp_path, frames=1)
    with pytest.raises(UsageError, match="no step to plot"):
        plotting.plot(header, plotting.Timeline(), tmp_path / "plot.png")


@pytest.mark.parametrize("name", ["plot", "plot.mp4", "plot.txt"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"plots can be \.jpeg"):
        plotting.check_target(tmp_path / name)


@pytest.mark.parametrize(("percent", "ceiling"), [(0.0, 1.0), (0.17, 0.2), (3.0, 3.5), (42.0, 50.0), (99.0, 100.0)])
def test_the_axis_ends_at_a_round_number(percent: float, ceiling: float) -> None:
    assert plotting._ceiling(percent) == pytest.approx(ceiling)
