from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from stream_nets import CHANNELS, SIZE, clips, stream_program

from mvtool.errors import ConversionError, VideoError
from mvtool.ports import InputPort, Preprocessing
from mvtool.program import ModelInfo
from mvtool.quantization.calibration import (
    STREAM_STEPS,
    CalibrationSet,
    Range,
    affine,
    image_range,
    port_ranges,
    rolled,
)
from mvtool.quantization.sources import load_calibration


def test_affine_by_hand() -> None:
    assert affine(0.0, 1.0).model_dump() == {"scale": float(np.float32(1 / 255)), "zero_point": -128}
    assert affine(-1.0, 1.55).model_dump() == {"scale": float(np.float32(0.01)), "zero_point": -28}
    assert affine(2.0, 5.1) == affine(0.0, 5.1), "a range is widened to hold 0"
    assert affine(-5.1, -2.0).zero_point == 127
    assert affine(0.0, 0.0).scale > 0


@pytest.mark.parametrize(("low", "high"), [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_affine_refuses(low: float, high: float) -> None:
    with pytest.raises(ConversionError, match="cannot be quantized"):
        affine(low, high)


def test_image_range_follows_the_preprocessing() -> None:
    plain = Preprocessing(resize_short_side=8, crop=(8, 8))
    assert image_range(plain) == Range(0.0, 1.0)
    assert image_range(plain.model_copy(update={"range": (-1.0, 1.0), "std": (0.5, 1.0, 1.0)})) == Range(-2.0, 2.0)


def test_states_roll_from_reset_in_every_clip() -> None:
    program, calibration = stream_program(), clips(count=2, steps=4)
    steps = list(rolled(program, calibration))
    assert [(s.clip, s.index) for s in steps] == [(c, i) for c in range(2) for i in range(4)]
    for before, after in pairwise(steps):
        if after.index == 0:
            assert not after.inputs["past"].any()
            assert after.inputs["count"] == 0
        else:
            np.testing.assert_array_equal(after.inputs["past"], before.outputs["past_next"])
    module = program.exported.module()
    states = [torch.zeros(1, 1), torch.zeros(2, SIZE // 2, SIZE // 2, CHANNELS), torch.zeros(1, CHANNELS)]
    for (frame,) in calibration.clips[0]:
        _, *states = module(torch.from_numpy(frame), *states)
    np.testing.assert_array_equal(steps[3].outputs["mean_next"], states[2].detach().numpy())


def test_ranges_are_true_extremes_and_shared_by_both_ends_of_a_state() -> None:
    program, calibration = stream_program(), clips(steps=12)
    steps, ranges = list(rolled(program, calibration)), port_ranges(program, calibration)
    seen = [s.inputs["past"] for s in steps] + [s.outputs["past_next"] for s in steps]
    assert ranges["past"] == Range(float(min(a.min() for a in seen)), float(max(a.max() for a in seen)))
    for state in program.states:
        assert ranges[state.input.name] == ranges[state.output.name]
    assert ranges["count"].high == 12
    assert ranges["frame"] == Range(0.0, 1.0), "camera bytes reach 0 and 1, whatever the clips show"


def test_one_extreme_frame_is_not_averaged_away() -> None:
    program, calibration = stream_program(), clips(count=1, steps=20)
    extreme = (calibration.clips[0][10][0] * 40.0,)
    spoiled = replace(calibration, clips=((*calibration.clips[0][:10], extreme, *calibration.clips[0][11:]),))
    assert port_ranges(program, spoiled)["past"].high > 10 * port_ranges(program, calibration)["past"].high


def test_infinite_states_are_refused_by_name() -> None:
    program, calibration = stream_program(), clips(count=1, steps=2)
    broken = replace(calibration, clips=(((np.full((1, SIZE, SIZE, 3), np.nan, np.float32),),),))
    with pytest.raises(ConversionError, match=r"'frame' is not finite"):
        port_ranges(program, broken)


def test_save_and_load(tmp_path: Path) -> None:
    written = replace(clips(count=2, steps=3), bundled=True, origin="clip.mp4", notes=("one", "two"))
    written.save(tmp_path / "set.npz")
    read = CalibrationSet.load(tmp_path / "set.npz")
    assert (read.bundled, read.origin, read.notes) == (True, "clip.mp4", ("one", "two"))
    np.testing.assert_array_equal(read.clips[1][2][0], written.clips[1][2][0])
    (tmp_path / "set.npz").write_bytes(b"no archive")
    with pytest.raises(VideoError, match="not a saved calibration set"):
        CalibrationSet.load(tmp_path / "set.npz")


def test_short_clips_play_to_and_fro_with_a_note() -> None:
    longer = clips(count=1, steps=3).extended(7)
    assert len(longer.clips[0]) == 7
    a, b, c = longer.clips[0][:3]
    assert [step is x for step, x in zip(longer.clips[0], (a, b, c, b, a, b, c), strict=True)] == [True] * 7
    assert "to and fro" in longer.notes[0]
    assert clips(count=1, steps=8).extended(7).notes == ()


def test_empty_sets_are_refused() -> None:
    with pytest.raises(VideoError, match="without frames"):
        CalibrationSet(((),))


INFO = ModelInfo("m", preprocessing=Preprocessing(resize_short_side=8, crop=(8, 8)))


def frame_port(shape: tuple[int, ...], layout: str) -> InputPort:
    return InputPort(
        name="frame",
        position=0,
        shape=tuple(s for s in shape if s != 1),
        dtype="float32",
        logical_shape=shape,
        permutation=tuple(range(len(shape))),
        image=True,
        logical_layout=layout,
    )


def test_uint8_arrays_are_preprocessed_camera_frames(tmp_path: Path) -> None:
    frames = np.arange(60 * 8 * 8 * 3, dtype=np.uint32).reshape(60, 8, 8, 3).astype(np.uint8)
    np.save(tmp_path / "clip.npy", frames)
    found = load_calibration(tmp_path, INFO, [frame_port((1, 3, 1, 8, 8), "NCTHW")])
    assert (len(found.clips), found.steps, found.bundled) == (1, 60, False)
    np.testing.assert_allclose(found.clips[0][7][0][0, :, 0], frames[7].transpose(2, 0, 1) / np.float32(255), atol=1e-6)


def test_clip_models_take_whole_windows(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", np.zeros((10, 8, 8, 3), np.uint8))
    found = load_calibration(tmp_path / "clip.npy", INFO, [frame_port((1, 3, 4, 8, 8), "NCTHW")], stream=False)
    assert [step[0].shape for step in found.clips[0]] == [(1, 3, 4, 8, 8)] * 2


@pytest.mark.parametrize(("per_step", "windows"), [(1, 64), (4, 16), (16, 4), (20, 4)])
def test_models_of_few_frames_take_many_windows(per_step: int, windows: int, tmp_path: Path) -> None:
    """A few neighbouring frames are one picture, whose ranges other pictures leave."""
    np.save(tmp_path / "clip.npy", np.zeros((90, 8, 8, 3), np.uint8))
    port = frame_port((1, 3, per_step, 8, 8), "NCTHW")
    assert load_calibration(tmp_path / "clip.npy", INFO, [port], stream=False).steps == windows


def test_streams_are_rolled_long_enough(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", np.zeros((5, 8, 8, 3), np.uint8))
    assert load_calibration(tmp_path, INFO, [frame_port((1, 3, 8, 8), "NCHW")]).steps == STREAM_STEPS


def test_logical_arrays_by_name(tmp_path: Path) -> None:
    ports = [
        InputPort(name=n, position=i, shape=(1, 4), dtype="float32", logical_shape=(1, 4), permutation=(0, 1))
        for i, n in enumerate(("a", "b"))
    ]
    np.savez(tmp_path / "one.npz", a=np.ones((3, 1, 4)), b=np.zeros((3, 1, 4)))
    found = load_calibration(tmp_path, ModelInfo("m"), ports, stream=False)
    assert found.clips[0][2][0].tolist() == [[1.0] * 4]
    np.savez(tmp_path / "one.npz", a=np.ones((3, 1, 4)))
    with pytest.raises(VideoError, match=r"lacks the inputs \['b'\]"):
        load_calibration(tmp_path, ModelInfo("m"), ports)


def test_other_models_get_seeded_random_inputs_and_a_note() -> None:
    ports = [InputPort(name="x", position=0, shape=(1, 4), dtype="float32", logical_shape=(1, 4), permutation=(0, 1))]
    one, other = (load_calibration(None, ModelInfo("m"), ports) for _ in range(2))
    assert one.bundled
    assert "random" in one.notes[0]
    np.testing.assert_array_equal(one.clips[0][5][0], other.clips[0][5][0])


@pytest.mark.parametrize(("size", "count"), [(4, 64), (2**20, 16), (2**25, 4)])
def test_large_random_inputs_are_few(size: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvtool.quantization.sources._random_input", lambda port, generator: np.zeros(1))
    shape = (1, size)
    port = InputPort(name="x", position=0, shape=shape, dtype="float32", logical_shape=shape, permutation=(0, 1))
    assert load_calibration(None, ModelInfo("m"), [port], stream=False).steps == count


@pytest.mark.parametrize(("name", "message"), [("nowhere", "does not exist"), ("empty", "holds no calibration data")])
def test_unusable_folders(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=message):
        load_calibration(tmp_path / name, INFO, [frame_port((1, 3, 8, 8), "NCHW")])


def token_port() -> InputPort:
    return InputPort(name="k", position=0, shape=(1, 4), dtype="int64", logical_shape=(1, 4), permutation=(0, 1))


def test_inputs_of_whole_numbers_are_calibrated_with_0_and_1() -> None:
    steps = [step[0] for step in load_calibration(None, ModelInfo("m"), [token_port()]).clips[0]]
    assert {str(step.dtype) for step in steps} == {"int64"}
    assert {int(value) for step in steps for value in step.flat} == {0, 1}


def test_arrays_of_whole_numbers_stay_whole(tmp_path: Path) -> None:
    # 2^24 + 1 is the first whole number that float32 cannot hold.
    np.save(tmp_path / "tokens.npy", np.full((3, 1, 4), 2**24 + 1))
    found = load_calibration(tmp_path, ModelInfo("m"), [token_port()], stream=False).clips[0][0][0]
    assert (str(found.dtype), int(found[0, 0])) == ("int64", 2**24 + 1)
    np.save(tmp_path / "tokens.npy", np.full((3, 1, 4), 0.5))
    with pytest.raises(VideoError, match="holds float64 for input 'k' of type int64; save whole numbers"):
        load_calibration(tmp_path, ModelInfo("m"), [token_port()])
