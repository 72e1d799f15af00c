"""What single frames of the generated motions tell about their labels: nothing.

A convolutional network is trained on one frame of each clip, taken at random, and asked about 2,000 clips that it has not seen: by one random
frame of each, by the first and by the last. The control is the same network with all frames of the clip as its channels, trained as long
on the same clips: it shows that the network and the training can find what there is to be found.

    python benchmarks/single_frames.py [--steps 1500] [--json FILE]

It ends with 1 if a single frame is farther from chance than 5 points.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mvtool.datasets.motion import MOTIONS, MotionVideos
from mvtool.evaluation.statistics import Interval, share

FRAMES, SIZE, BATCH, TEST_CLIPS = 16, 64, 32, 2000
ALLOWED = 0.05
"""Distance from chance that a classifier of single frames may have."""


def network(channels: int) -> nn.Module:
    """Five convolutions with batch norms, 64 to 2 pixels, mean, dense."""
    layers: list[nn.Module] = []
    for width in (32, 64, 96, 128, 192):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(MOTIONS)))


def clip(videos: MotionVideos, index: int) -> Tensor:
    """Frames `(T, 3, H, W)` in -0.5..0.5."""
    return torch.from_numpy(videos.frames_of(index)).permute(0, 3, 1, 2).float() / 255 - 0.5


def train(steps: int) -> tuple[nn.Module, nn.Module]:
    """The network of single frames and the control, trained on the same clips."""
    videos = MotionVideos(clips=10**9, frames=FRAMES, size=SIZE, split="train")
    torch.manual_seed(0)
    single, control = network(3), network(3 * FRAMES)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02) for model in (single, control)]
    schedules = [torch.optim.lr_scheduler.OneCycleLR(o, 2e-3, total_steps=steps) for o in optimizers]
    chosen = np.random.default_rng(0)
    for step in range(steps):
        indices = range(step * BATCH, (step + 1) * BATCH)
        clips = torch.stack([clip(videos, index) for index in indices])
        labels = torch.tensor([videos.label(index) for index in indices])
        frames = clips[torch.arange(BATCH), torch.from_numpy(chosen.integers(0, FRAMES, BATCH))]
        losses = []
        for model, optimizer, schedule, seen in zip(
            (single, control), optimizers, schedules, (frames, clips.flatten(1, 2)), strict=True
        ):
            loss = nn.functional.cross_entropy(model(seen), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}: loss {losses[0]:.3f}, control {losses[1]:.3f}", flush=True)
    return single.eval(), control.eval()


@torch.no_grad()
def right(single: nn.Module, control: nn.Module) -> dict[str, Interval]:
    """Share of right answers on test clips."""
    videos = MotionVideos(clips=TEST_CLIPS, frames=FRAMES, size=SIZE, split="test")
    chosen = np.random.default_rng(1).integers(0, FRAMES, TEST_CLIPS)
    counts = dict.fromkeys(("a random frame", "the first frame", "the last frame", "control: all frames"), 0)
    for index in range(TEST_CLIPS):
        frames, label = clip(videos, index), videos.label(index)
        picked = torch.stack([frames[chosen[index]], frames[0], frames[-1]])
        answers = [*single(picked).argmax(1).tolist(), int(control(frames.flatten(0, 1)[None]).argmax())]
        for name, answer in zip(counts, answers, strict=True):
            counts[name] += answer == label
    return {name: share(count, TEST_CLIPS) for name, count in counts.items()}


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = right(*train(arguments.steps))
    chance = 1 / len(MOTIONS)
    print(f"{TEST_CLIPS} clips, {len(MOTIONS)} classes, chance {chance:.1%}")
    for name, (value, low, high) in found.items():
        print(f"{name:22} {value:6.1%}   95 % interval {low:.1%} to {high:.1%}")
    if arguments.json:
        document = {"chance": chance, "clips": TEST_CLIPS, **{name: i._asdict() for name, i in found.items()}}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if any(abs(i.value - chance) > ALLOWED for name, i in found.items() if not name.startswith("control")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
