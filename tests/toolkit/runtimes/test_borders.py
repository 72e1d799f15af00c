"""Rounding at the border of two steps."""

from __future__ import annotations

import torch

from mvtool.runtimes.borders import BORDER_STEPS, TABLE_BORDER_STEPS, Border, Borders

NEAR = BORDER_STEPS / 2
SLIGHT = TABLE_BORDER_STEPS / 2


def test_rounds_like_torch_and_notes_what_is_near_a_border() -> None:
    borders = Borders()
    steps = torch.tensor([[0.2, 0.5 + NEAR, -1.5], [2.5 - NEAR / 2, 7.0, 0.49]])
    borders.begin()
    torch.testing.assert_close(borders.round("gate", steps), steps.round(), rtol=0, atol=0)
    borders.round("none", torch.tensor([1.0]))
    borders.round("other", torch.tensor([4.5 + NEAR / 4]))
    turns = [Border("gate", 2), Border("other", 0), Border("gate", 3), Border("gate", 1)]
    assert borders.met() == turns
    assert borders.met(2) == turns[:2]


def test_sites_take_turns() -> None:
    borders = Borders()
    borders.begin()
    borders.round("grid", torch.full((200,), 0.5))
    borders.round("gate", torch.tensor([0.5 + NEAR, 0.2]))
    borders.round("other", torch.tensor([0.5 - NEAR / 2]))
    first = [Border("grid", 0), Border("other", 0), Border("gate", 0)]
    assert borders.met(5) == [*first, Border("grid", 1), Border("grid", 2)]


def test_at_a_site_those_exactly_on_a_border_and_those_beside_it_take_turns() -> None:
    borders = Borders()
    borders.begin()
    borders.round("gate", torch.tensor([0.5 + NEAR, 0.5, 1.5, 2.5, 0.5 + NEAR / 4]))
    assert [border.element for border in borders.met()] == [1, 4, 2, 0, 3]


def test_chosen_values_go_the_other_way() -> None:
    borders = Borders()
    steps = torch.tensor([0.5 + NEAR, 0.5 - NEAR, -0.5 - NEAR, 0.5])
    borders.begin(frozenset({Border("gate", 0), Border("gate", 2), Border("gate", 3), Border("other", 1)}))
    assert borders.round("gate", steps).tolist() == [0.0, 0.0, 0.0, 1.0]


def test_begin_forgets() -> None:
    borders = Borders()
    borders.begin(frozenset({Border("gate", 0)}))
    borders.round("gate", torch.tensor([0.5 + NEAR]))
    borders.begin()
    assert borders.met() == []
    assert borders.round("gate", torch.tensor([0.5 + NEAR])).tolist() == [1.0]


def test_scattering_turns_half_of_what_is_near_a_border_and_nothing_else() -> None:
    borders, steps = (
        Borders(),
        torch.cat([torch.full((1000,), 2.5 + NEAR), torch.full((50,), 0.5), torch.tensor([0.2])]),
    )
    borders.scatter(3)
    first = borders.round("gate", steps)
    assert 400 < int((first[:1000] == 2.0).sum()) < 600
    assert torch.equal(first[1000:], steps[1000:].round())
    borders.scatter(3)
    assert torch.equal(borders.round("gate", steps), first)
    borders.scatter(4)
    assert not torch.equal(borders.round("gate", steps), first)
    borders.begin()
    assert torch.equal(borders.round("gate", steps), steps.round())


TABLE = torch.tensor([[0.5 + SLIGHT, 2.0, 3.5, 0.5 + SLIGHT], [3.5, 0.5 + NEAR, -0.5 - SLIGHT, 0.5 + SLIGHT]])


def test_of_a_table_each_value_is_noted_once_and_only_if_it_is_as_near_as_roundings_of_one_value_are() -> None:
    borders = Borders()
    borders.begin()
    assert torch.equal(borders.round("swish", TABLE, table=True), TABLE.round())
    high, low = float(TABLE[0, 0]), float(TABLE[1, 2])
    assert borders.met() == [Border("swish", entry=entry) for entry in (3.5, low, high)]


def test_equal_values_of_a_table_are_turned_together() -> None:
    borders = Borders()
    borders.begin(frozenset({Border("swish", entry=float(TABLE[0, 0])), Border("swish", entry=3.5)}))
    assert borders.round("swish", TABLE, table=True).tolist() == [[0.0, 2.0, 3.0, 0.0], [3.0, 1.0, -1.0, 0.0]]


def test_scattering_turns_a_table_value_by_value() -> None:
    borders, seen = Borders(), set()
    for seed in range(32):
        borders.scatter(seed)
        turned = (borders.round("swish", TABLE, table=True) != TABLE.round()).flatten().tolist()
        assert turned[0] == turned[3] == turned[7]
        assert turned[2] == turned[4]
        assert not turned[1]
        assert not turned[5]
        seen.add((turned[0], turned[2], turned[6]))
    assert len(seen) == 8


def test_scattering_leaves_what_is_known_to_be_turned() -> None:
    borders, known = Borders(), frozenset({Border("swish", entry=3.5)})
    for seed in range(8):
        borders.scatter(seed, known)
        turned = (borders.round("swish", TABLE, table=True) != TABLE.round()).flatten().tolist()
        assert turned[2]
        assert turned[4]
