"""Shapes as written on the command line, and how they reach `forward`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvtool.converters.calling import plan_call, random_tensor
from mvtool.converters.inputs import InputSpec, parse_input, parse_state
from mvtool.converters.naming import Names, identifier
from mvtool.errors import CaptureError, UsageError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x172x172", InputSpec(None, (1, 3, 172, 172))),
        ("frame=1x3x8x16x16:float16", InputSpec("frame", (1, 3, 8, 16, 16), "float16")),
        ("state.0=1,32", InputSpec("state.0", (1, 32))),
        (" n=scalar:int64 ", InputSpec("n", (), "int64")),
        ("7:bool", InputSpec(None, (7,), "bool")),
    ],
)
def test_a_shape_is_read(text: str, spec: InputSpec) -> None:
    assert parse_input(text) == spec


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "cannot be read"),
        ("1x3x", "cannot be read"),
        ("1X3", "cannot be read"),
        ("1x-3", "cannot be read"),
        ("=1x3", "cannot be read"),
        ("a b=1x3", "cannot be read"),
        ("1x3:float64", "float64"),
        ("1x0x3", "size 0"),
    ],
)
def test_a_bad_shape_is_refused(text: str, phrase: str) -> None:
    with pytest.raises(UsageError, match=phrase):
        parse_input(text)


def test_images_are_guessed_from_the_shape_unless_told() -> None:
    assert parse_input("1x3x8x8").layout == "NCHW"
    assert parse_input("1x3x4x8x8").layout == "NCTHW"
    assert not parse_input("1x3x8x8", image=False).is_image
    assert not parse_input("1x4x8x8").is_image
    assert not parse_input("1x3x8x8:int64").is_image
    assert parse_input("1x1x8x8", image=True).layout == "NCHW"


def test_a_state_pair_is_read() -> None:
    assert parse_state(" h = output1 ") == ("h", "output1")
    for text in ("h", "h=", "=y", "h=y=z"):
        with pytest.raises(UsageError, match="input=output"):
            parse_state(text)


class Call(nn.Module):
    """Returns how it was called."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *rest: Tensor, state: object = None, mode: str = ""
    ) -> object:
        return x, mask, rest, state, mode


class Open(nn.Module):
    def forward(self, x: Tensor, **options: object) -> object:
        return x, options


def arguments(module: nn.Module, specs: list[InputSpec], **constants: object) -> object:
    tensors = [torch.full(spec.shape, float(index)) for index, spec in enumerate(specs)]
    positional, keywords = plan_call(module, specs, constants).arguments(tensors)
    return module(*positional, **keywords)


def one(name: str | None, **options: bool) -> InputSpec:
    return InputSpec(name, (), **options)  # type: ignore[arg-type]


def test_inputs_find_their_arguments() -> None:
    zero, first, second, third = (torch.tensor(float(i)) for i in range(4))
    assert arguments(Call(), [one(None)]) == (zero, None, (), None, "")
    assert arguments(Call(), [one("mask"), one(None)]) == (first, zero, (), None, "")
    assert arguments(Call(), [one(None)] * 4) == (zero, first, (second, third), None, "")
    assert arguments(Call(), [one("x"), one("state")], mode="fast") == (zero, None, (), first, "fast")
    assert arguments(Open(), [one("x"), one("extra")], depth=2) == (zero, {"extra": first, "depth": 2})
    assert plan_call(Call(), [one("x", as_kwarg=True)], {}).keywords == ("x",)


def test_dotted_inputs_build_tuples_and_dicts() -> None:
    zero, first, second = (torch.tensor(float(i)) for i in range(3))
    names = ["x", "state.1", "state.0"]
    assert arguments(Call(), [one(name) for name in names])[3] == (second, first)  # type: ignore[index]
    names = ["x", "state.keys.0", "state.values"]
    assert arguments(Call(), [one(name) for name in names]) == (
        zero,
        None,
        (),
        {"keys": (first,), "values": second},
        "",
    )
    with pytest.raises(CaptureError, match="without gaps"):
        arguments(Call(), [one("x"), one("state.0"), one("state.2")])


def test_random_images_are_in_range_and_steps_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    image = random_tensor(parse_input("1x3x8x8"), 2, generator)
    assert 0 <= image.min() < 0.1
    assert 0.9 < image.max() < 1
    spreads = [random_tensor(parse_input("100x100"), step, generator).std().item() for step in range(3)]
    assert spreads == pytest.approx([1.0, 0.25, 2.0], rel=0.05)
    assert set(random_tensor(parse_input("50:int64"), 0, generator).tolist()) == {0, 1}
    assert random_tensor(parse_input("5:bool"), 0, generator).dtype == torch.bool


def test_names_are_identifiers_and_unique_regardless_of_case() -> None:
    assert [identifier(text) for text in ("a.b-c", "0.h", "")] == ["a_b_c", "_0_h", "_"]
    names = Names()
    assert [names.unique(n) for n in ("frame", "Frame", "a.b", "a_b", "a_b")] == [
        "frame",
        "Frame_2",
        "a_b",
        "a_b_2",
        "a_b_3",
    ]
    assert names.unique("h_next") == "h_next"
    assert names.unique_pair("h", "_state") == "h_state"
    assert names.unique_pair("h", "_state") == "h_state_2"
    assert names.unique("h_state_next") == "h_state_next_2"
