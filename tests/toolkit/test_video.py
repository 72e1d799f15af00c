from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import sample_videos
from PIL import Image
from sample_videos import encode, picture

from mvtool import demo_clip, video
from mvtool.errors import VideoError
from mvtool.frame_clock import Frame


def means(frames: list[Frame]) -> list[tuple[int, ...]]:
    """Mean colour of the lower half of each frame."""
    return [tuple(int(v) for v in f.image[f.image.shape[0] // 2 + 4 :].mean((0, 1)).round()) for f in frames]


def numbers(frames: list[Frame]) -> list[int]:
    """Which of the four colours each frame shows."""
    colours = np.asarray(sample_videos.COLOURS)
    return [int(np.abs(colours - np.asarray(mean)).sum(1).argmin()) for mean in means(frames)]


def test_every_frame_comes_in_order_with_its_time(tmp_path: Path) -> None:
    frames = list(video.frames(encode(tmp_path / "a.mp4", 7)))
    assert numbers(frames) == [0, 1, 2, 3, 0, 1, 2]
    assert [f.index for f in frames] == list(range(7))
    assert [f.time_s for f in frames] == pytest.approx([0.1 * i for i in range(7)])
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8


def test_colours_survive_as_rgb(tmp_path: Path) -> None:
    frame = next(video.frames(encode(tmp_path / "a.mp4", 2)))
    assert np.abs(frame.image.astype(int) - picture(0)).mean() < 3


def test_a_lower_frame_rate_takes_the_nearest_frame(tmp_path: Path) -> None:
    # Frames lie at 0, 0.1, ... 1.9 s; steps at 0, 0.25, 0.5, ...: ties (0.25, 0.75) take the earlier frame.
    frames = list(video.frames(encode(tmp_path / "a.mp4", 20), frame_rate=4))
    assert [round(f.time_s, 3) for f in frames] == [0.0, 0.2, 0.5, 0.7, 1.0, 1.2, 1.5, 1.7]
    assert [f.index for f in frames] == list(range(8))


def test_a_higher_frame_rate_repeats_frames(tmp_path: Path) -> None:
    frames = list(video.frames(encode(tmp_path / "a.mp4", 4), frame_rate=20))
    assert numbers(frames) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_variable_frame_rate_follows_the_time_stamps(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", 4, stamps=(0, 100, 1000, 1100))
    assert [round(f.time_s, 3) for f in video.frames(path)] == [0.0, 0.1, 1.0, 1.1]
    # Steps at 0, 0.2, ... 1.0: the second frame stays until half way to the third (0.55 s).
    assert numbers(list(video.frames(path, frame_rate=5))) == [0, 1, 1, 2, 2, 2]


def test_limit_stops_early(tmp_path: Path) -> None:
    assert len(list(video.frames(encode(tmp_path / "a.mp4"), limit=3))) == 3


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [
        ("libx264", "gray", ".mp4"),
        ("libx264", "yuv420p10le", ".mkv"),
        ("libx264", "yuv444p", ".mp4"),
        ("mpeg4", "yuv420p", ".avi"),
        ("mjpeg", "yuvj420p", ".mov"),
        ("prores", "yuv422p10le", ".mov"),
        ("png", "rgba", ".mov"),
        ("ffv1", "yuva420p", ".mkv"),
        ("libvpx-vp9", "yuv420p", ".webm"),
    ],
)
def test_codecs_and_pixel_formats(tmp_path: Path, codec: str, pixel_format: str, suffix: str) -> None:
    path = encode(tmp_path / f"a{suffix}", 4, codec=codec, pixel_format=pixel_format)
    frames = list(video.frames(path))
    assert len(frames) == 4
    assert frames[0].image.shape == (48, 64, 3)
    if pixel_format != "gray":
        assert numbers(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [(47, 63), (1, 1), (49, 2), (37, 128)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = encode(tmp_path / "a.mkv", 3, size=size, codec="ffv1", pixel_format="yuv444p")
    assert [f.image.shape for f in video.frames(path)] == [(*size, 3)] * 3


def test_a_video_filmed_sideways_is_turned_upright(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4", 3)
    turned = sample_videos.rotate_mp4(whole, tmp_path / "b.mp4")
    before, after = next(video.frames(whole)).image, next(video.frames(turned)).image
    assert after.shape == (64, 48, 3)
    # Clockwise: the white quarter moves from the upper left to the upper right.
    np.testing.assert_array_equal(after, np.rot90(before, -1))
    assert after[:20, 30:].min() > 200


@pytest.mark.parametrize("name", ["missing.mp4", "no/such/folder"])
def test_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(VideoError, match="does not exist"):
        video.frames(tmp_path / name)


def test_zero_length_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(VideoError, match="empty file of 0 bytes"):
        video.frames(tmp_path / "a.mp4")


def test_noise_instead_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(VideoError, match="cannot be read as a video"):
        list(video.frames(tmp_path / "a.mp4"))


def test_text_instead_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abseiling\nair drumming\n" * 50)
    with pytest.raises(VideoError, match=r"is a text file|cannot be read as a video"):
        list(video.frames(tmp_path / "a.txt"))


def test_audio_only(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds no video track, only audio"):
        list(video.frames(sample_videos.audio_only(tmp_path / "a.mp4")))


def test_video_with_sound_is_fine(tmp_path: Path) -> None:
    assert len(list(video.frames(encode(tmp_path / "a.mp4", 5, audio_s=3.0)))) == 5


def test_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError, match=r"gives no frame|cannot be read"):
        list(video.frames(path))


def test_mp4_that_lost_its_end(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="cannot be read as a video"):
        list(video.frames(sample_videos.cut(whole, tmp_path / "b.mp4", 0.5)))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "libx264", {"movflags": "faststart"}), ("a.avi", "mpeg4", {}), ("a.mkv", "libx264", {})],
)
def test_broken_off_gives_its_whole_frames_and_then_an_error(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    whole = encode(tmp_path / name, 40, size=(96, 128), codec=codec, muxer_options=options)
    broken = sample_videos.cut(whole, tmp_path / f"broken_{name}", 0.6)
    seen: list[Frame] = []
    with pytest.raises(VideoError, match=r"is broken off: it announces 4(0 frames|\.00 s), and only \d+ frames"):
        seen.extend(video.frames(broken))
    assert 3 <= len(seen) < 36
    assert numbers(seen)[:3] == [0, 1, 2]


def test_a_damaged_middle_is_stepped_over(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.avi", 40, size=(96, 128), codec="mpeg4")
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = np.random.default_rng(1).bytes(200)
    whole.write_bytes(data)
    assert 36 <= len(list(video.frames(whole))) <= 40


@pytest.mark.parametrize("rate", [0.0, -5.0, float("nan"), float("inf")])
def test_absurd_frame_rates_are_refused(rate: float) -> None:
    with pytest.raises(VideoError, match="frame rate"):
        video.frames(demo_clip.path(), frame_rate=rate)


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(VideoError, match="expected at least 1"):
        video.frames(demo_clip.path(), limit=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names a Linux device")
def test_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match=r"Camera 77 .*video77"):
        list(video.frames(77))


def test_image_folder_in_natural_order(tmp_path: Path) -> None:
    for index in (0, 1, 2, 10):
        Image.fromarray(picture(index)).save(tmp_path / f"frame{index}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    frames = list(video.frames(tmp_path, frame_rate=5))
    assert numbers(frames) == [0, 1, 2, 10 % 4]
    assert [f.time_s for f in frames] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    np.testing.assert_array_equal(frames[1].image, picture(1))


def test_image_modes_and_orientation(tmp_path: Path) -> None:
    base = picture(0)
    Image.fromarray(base).convert("RGBA").save(tmp_path / "0.png")
    Image.fromarray(base).convert("L").save(tmp_path / "1.png")
    Image.fromarray(np.full((8, 6), 40000, np.uint16)).save(tmp_path / "2.png")
    turned = Image.fromarray(base)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned.save(tmp_path / "3.png", exif=exif)
    images = [f.image for f in video.frames(tmp_path)]
    np.testing.assert_array_equal(images[0], base)
    assert images[1].shape == (48, 64, 3)
    assert images[2].tolist()[0][0] == [156, 156, 156]  # 40000 / 256
    np.testing.assert_array_equal(images[3], np.rot90(base, -1))


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds no image"):
        list(video.frames(tmp_path))


def test_broken_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    with pytest.raises(VideoError, match=r"a\.png cannot be read"):
        list(video.frames(tmp_path))


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"P5 2 1 65535\n\x9c\x40\xff\xff", [156, 255]), (b"P5 2 1 255\n\x9c\xff", [156, 255])],
    ids=["16 bits", "8 bits"],
)
def test_grey_pnm(tmp_path: Path, data: bytes, expected: list[int]) -> None:
    (tmp_path / "a.ppm").write_bytes(data)
    (frame,) = video.frames(tmp_path)
    np.testing.assert_array_equal(frame.image, np.repeat(np.asarray(expected, np.uint8)[None, :, None], 3, 2))


def test_16_bit_tiff(tmp_path: Path) -> None:
    Image.fromarray(np.asarray([[0, 255, 256, 65535]], np.uint16)).save(tmp_path / "a.tiff")
    (frame,) = video.frames(tmp_path)
    assert frame.image[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [255] * 3]


@pytest.mark.parametrize(("kind", "words"), [(np.int32, "32-bit integers"), (np.float32, "floating-point numbers")])
def test_values_without_a_white_are_refused(tmp_path: Path, kind: type[np.generic], words: str) -> None:
    Image.fromarray(np.full((4, 4), 1, kind)).save(tmp_path / "a.tiff")
    with pytest.raises(VideoError, match=rf"a\.tiff holds {words}, .* Scale its values to 0\.\.255"):
        list(video.frames(tmp_path))


@pytest.mark.parametrize(
    "header", [b"P6 2 q 255\n", b"P6 2 2 2x5\n", b"P6 2 2 0\n", b"P3 2 2 255\n1 2 x", b"P6 2 2 255\n"]
)
def test_damaged_ppm(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.ppm").write_bytes(header)
    with pytest.raises(VideoError, match=r"a\.ppm cannot be read: .* Replace or remove it"):
        list(video.frames(tmp_path))


def test_names_with_digits_that_are_no_numbers(tmp_path: Path) -> None:
    for name in ("²5.png", "²10.png", "①.png", "٣.png"):
        Image.fromarray(picture(0)).save(tmp_path / name)
    assert [p.name for p in video.image_files(tmp_path)] == ["٣.png", "²5.png", "²10.png", "①.png"]
    with pytest.raises(VideoError, match="does not exist"):
        video.frames("²")


def test_array_file(tmp_path: Path) -> None:
    stack = np.stack([picture(i) for i in range(5)])
    np.save(tmp_path / "a.npy", stack)
    frames = list(video.frames(tmp_path / "a.npy", frame_rate=10, limit=3))
    np.testing.assert_array_equal(np.stack([f.image for f in frames]), stack[:3])


@pytest.mark.parametrize(
    "array", [np.zeros((5, 8, 8), np.uint8), np.zeros((5, 8, 8, 3), np.float32), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_array_of_another_form(tmp_path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VideoError, match="expected \\(frames, height, width, 3\\) of uint8"):
        list(video.frames(tmp_path / "a.npy"))


def test_array_of_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asarray([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(VideoError, match="cannot be read as a NumPy array"):
        list(video.frames(tmp_path / "a.npy"))


@pytest.mark.parametrize("rate", [None, 4.0, 10.0])
def test_expected_steps_agree_with_the_frames(tmp_path: Path, rate: float | None) -> None:
    path = encode(tmp_path / "a.mp4", 20)
    assert video.expected_steps(path, frame_rate=rate) == len(list(video.frames(path, frame_rate=rate)))


def test_clips_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "images2").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "images2" / "0.png")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "images10.npy", np.zeros((1, 4, 4, 3), np.uint8))
    (tmp_path / "readme.txt").touch()
    assert [p.name for p in video.clips(tmp_path)] == ["images2", "images10.npy"]
    assert video.clips(tmp_path / "images2") == [tmp_path / "images2"]
    with pytest.raises(VideoError, match="holds no clip"):
        video.clips(tmp_path / "empty")
    with pytest.raises(VideoError, match="does not exist"):
        video.clips(tmp_path / "nowhere")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvtool.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mvtool\[video\]'"):
        list(video.frames(demo_clip.path()))
