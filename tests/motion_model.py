"""Source of a small stream with one state, for tests that convert a user's own module by name."""

MODEL = """
import torch
from torch import nn


class Motion(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 4)
        self.register_buffer("memory", torch.zeros(1, 8, 16, 16))

    def forward(self, frame):
        seen = self.features(frame).relu()
        scores = self.head((seen - self.memory).abs().mean((2, 3)))
        self.memory.copy_(0.5 * self.memory + 0.5 * seen)
        return scores


def make():
    torch.manual_seed(0)
    return Motion()
"""
