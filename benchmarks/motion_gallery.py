"""One generated clip of each class, every second frame, as a picture.

python benchmarks/motion_gallery.py docs/images/motions.jpg
"""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from mvtool.datasets.motion import MOTIONS, MotionVideos

EVERY = 2


def main(target: str) -> None:
    """Draw the picture."""
    videos = MotionVideos(frames=16, size=64, split="train")
    columns = videos.frames // EVERY
    figure = Figure(figsize=(7.5, 12))
    grid = figure.subplots(len(MOTIONS), columns)
    for index, row in enumerate(grid):
        for axes, frame in zip(row, videos.frames_of(index)[::EVERY], strict=True):
            axes.imshow(frame)
            axes.set_axis_off()
        row[0].set_title(videos.labels[index], fontsize=9, loc="left", pad=2).set_in_layout(False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.98, bottom=0.0, wspace=0.04, hspace=0.28)
    figure.savefig(target, dpi=72, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/motion_gallery.py OUT.png")
    main(sys.argv[1])
