from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_session import CLASSES, FakeSession, manifest
from sample_videos import encode, picture

from mvtool import preprocessing, running
from mvtool.errors import RuntimeLoadError, UsageError, VideoError
from mvtool.ports import Preprocessing


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds: ten steps at the model's five frames per second."""
    return encode(tmp_path / "clip.mp4", 20)


def test_every_step_is_recorded(clip: Path) -> None:
    session = FakeSession(manifest())
    result = running.run(session, clip, top_k=2)
    steps = list(result.steps)
    assert result.header.expected_steps == len(steps) == 10
    assert session.resets == 1
    assert [s.index for s in steps] == list(range(10))
    assert [s.time_s for s in steps] == pytest.approx([0.2 * i for i in range(10)])
    assert [score.label for score in steps[3].top] == ["class 5", "class 4"]
    logits = np.linspace(0, 1, CLASSES) * 4
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(steps[3].probabilities, expected, rtol=1e-6)
    assert steps[3].top[0].probability == pytest.approx(expected[-1], rel=1e-6)


def test_frames_go_through_the_manifests_preprocessing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([picture(0), picture(1)]))
    session = FakeSession(manifest())
    list(running.run(session, tmp_path / "a.npy").steps)
    expected = preprocessing.apply(Preprocessing(resize_short_side=32, crop=(32, 32)), picture(1))
    np.testing.assert_array_equal(session.seen[1][0, :, 0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("layout", ["NCTHW", "NTHWC", "CTHW", "THWC"])
def test_clip_models_get_their_axes(tmp_path: Path, layout: str) -> None:
    np.save(tmp_path / "a.npy", np.stack([picture(i) for i in range(4)]))
    session = FakeSession(manifest(frames_per_step=4, layout=layout))
    list(running.run(session, tmp_path / "a.npy").steps)
    (seen,) = session.seen
    order = [layout.replace("N", "").index(axis) for axis in "THWC"]
    frames = seen.reshape([n for n, axis in zip(seen.shape, layout, strict=True) if axis != "N"]).transpose(order)
    expected = preprocessing.apply(Preprocessing(resize_short_side=32, crop=(32, 32)), picture(2))
    np.testing.assert_array_equal(frames[2], expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_models_without_a_time_axis(tmp_path: Path, layout: str) -> None:
    np.save(tmp_path / "a.npy", np.stack([picture(0)] * 2))
    assert len(list(running.run(FakeSession(manifest(layout=layout)), tmp_path / "a.npy").steps)) == 2


def test_the_last_clip_is_filled_up(clip: Path) -> None:
    session = FakeSession(manifest(frames_per_step=4))
    result = running.run(session, clip)
    steps = list(result.steps)
    assert result.header.expected_steps == len(steps) == 3
    assert [s.frame_index for s in steps] == [3, 7, 9]
    last = session.seen[2]
    np.testing.assert_array_equal(last[:, :, 1], last[:, :, 2])
    np.testing.assert_array_equal(last[:, :, 1], last[:, :, 3])
    assert not np.array_equal(last[:, :, 0], last[:, :, 1])


def test_limit_counts_steps(clip: Path) -> None:
    result = running.run(FakeSession(manifest(frames_per_step=2)), clip, limit=2)
    assert result.header.expected_steps == 2
    assert len(list(result.steps)) == 2


def test_untrained_weights_are_named_everywhere(clip: Path) -> None:
    result = running.run(FakeSession(manifest(untrained=True)), clip)
    step = next(result.steps)
    assert "untrained weights" in result.header.title
    assert result.header.to_record()["warning"] == "untrained weights"
    assert step.to_record()["warning"] == "untrained weights"


def test_trained_weights_are_not(clip: Path) -> None:
    result = running.run(FakeSession(manifest()), clip)
    text = json.dumps([result.header.to_record(), next(result.steps).to_record()]) + result.header.title
    assert "untrained weights" not in text


def test_the_manifests_own_labels_are_used_where_they_fit(clip: Path) -> None:
    own = running.run(FakeSession(manifest(classes=600, labels="kinetics600")), clip)
    assert own.header.labels == "kinetics600"
    assert next(own.steps).top[0].label == "zumba"
    other = running.run(FakeSession(manifest(classes=7, labels="kinetics600")), clip)
    assert other.header.labels is None
    assert next(other.steps).top[0].label == "class 6"


def test_class_names_in_the_manifest_are_used(clip: Path) -> None:
    names = tuple(f"move {n}" for n in range(6))
    own = running.run(FakeSession(manifest(labels="moves", class_names=names)), clip)
    assert own.header.labels == "moves"
    assert next(own.steps).top[0].label == "move 5"


def test_labels_that_were_asked_for_must_fit(clip: Path) -> None:
    with pytest.raises(UsageError, match="holds 400 labels, and the model gives 6"):
        running.run(FakeSession(manifest()), clip, labels="kinetics400")


def test_logits_that_are_no_numbers(clip: Path) -> None:
    session = FakeSession(manifest())
    session.answer = float("nan")
    with pytest.raises(RuntimeLoadError, match="fake engine at step 0 gave 1 logits of 6 that are not finite"):
        list(running.run(session, clip).steps)


def test_models_that_take_no_video(clip: Path) -> None:
    ports = manifest()
    vector = ports.inputs[0].model_copy(update={"image": False})
    session = FakeSession(ports.model_copy(update={"inputs": (vector,)}))
    with pytest.raises(UsageError, match="colours cannot run on a video: its inputs are frame"):
        running.run(session, clip)


def test_models_that_give_no_scores(clip: Path) -> None:
    ports = manifest()
    image = ports.outputs[0].model_copy(update={"logical_shape": (1, 8, 8), "meaning": "mask"})
    session = FakeSession(ports.model_copy(update={"outputs": (image,)}))
    with pytest.raises(UsageError, match=r"gives logits \(1, 8, 8\); expected one vector"):
        running.run(session, clip)


def test_a_contract_that_nobody_stated() -> None:
    port = manifest(preprocessing=False).inputs[0].model_copy(update={"logical_shape": (1, 3, 1, 24, 40)})
    contract = running.default_preprocessing(port)
    assert contract.crop == (24, 40)
    # Every shape of video contains the crop.
    for height, width in ((100, 100), (100, 300), (300, 100)):
        assert preprocessing.apply(contract, picture(0, height, width)).shape == (24, 40, 3)


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(running.softmax(np.asarray([[1e4, 1e4, -1e4]])), [0.5, 0.5, 0.0])


def test_a_missing_video_is_told_at_once() -> None:
    with pytest.raises(VideoError, match="does not exist"):
        running.run(FakeSession(manifest()), "nowhere.mp4")


def test_records_are_json(clip: Path) -> None:
    result = running.run(FakeSession(manifest()), clip, top_k=1)
    header = json.loads(json.dumps(result.header.to_record()))
    assert header["kind"] == "header"
    assert header["schema"] == "mvtool.run/1"
    assert (header["model"], header["runtime"], header["precision"]) == ("colours", "tflite", "fp32")
    record = json.loads(json.dumps(replace(next(result.steps), latency_ms=1.5).to_record()))
    assert record == {
        "kind": "step",
        "step": 0,
        "frame": 0,
        "time_s": 0.0,
        "latency_ms": 1.5,
        "top": [{"label": "class 5", "class": 5, "probability": pytest.approx(0.2594, abs=1e-4)}],
    }
