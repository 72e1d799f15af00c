"""Whether a file and a model hold the same tensors, checked both ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

Shape = tuple[int, ...]
GROUPS_SHOWN = 12
NAMES_SHOWN = 6


@dataclass(frozen=True)
class Coverage:
    """Differences between a file and a model.

    Attributes:
        missing: Names of the model's tensors that the file lacks.
        unexpected: Keys of the file that are no tensor of the model, or a second one for the same tensor.
        misshapen: Name in the model, shape in the file, shape in the model.
        not_finite: Keys whose values include NaN or infinity.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, Shape, Shape], ...]
    not_finite: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Nothing differs."""
        return not (self.missing or self.unexpected or self.misshapen or self.not_finite)

    @property
    def classes(self) -> tuple[int, int] | None:
        """Number of classes in the file and in the model, where only weight and bias of one layer differ, and only in it."""
        counts = {(got[0], wanted[0]) for _, got, wanted in self.misshapen if _inner(got) == _inner(wanted)}
        leaves = {tuple(name.rpartition(".")[::2]) for name, _, _ in self.misshapen}
        one_layer = len({layer for layer, _ in leaves}) == 1 and {leaf for _, leaf in leaves} == {"weight", "bias"}
        alone = not (self.missing or self.unexpected or self.not_finite)
        same = all(_inner(got) == _inner(wanted) for _, got, wanted in self.misshapen)
        return counts.pop() if one_layer and alone and same and len(counts) == 1 else None

    def message(self, path: object, model: str, naming: str) -> str:
        """Everything that differs, grouped by layer; for a head of another size, how to go on."""
        if self.classes is not None:
            got, wanted = self.classes
            head = ", ".join(name for name, _, _ in self.misshapen)
            return (
                f"The weights {path} ({naming} naming) are of a model with {got} classes, and {model} was built for {wanted}; "
                f"all other tensors fit (different: {head}). Give the number of classes, --num-classes {got} "
                f"(num_classes={got} in Python), and their names with --labels FILE, one per line."
            )
        counts = (
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected, {len(self.misshapen)} misshapen, "
            f"{len(self.not_finite)} not finite"
        )
        lines = [f"The weights {path} ({naming} naming) do not fit {model}: {counts}."]
        lines += _section("missing from the file", self.missing)
        lines += _section("unexpected in the file", self.unexpected)
        notes = {name: f"{got}, expected {wanted}" for name, got, wanted in self.misshapen}
        lines += _section("misshapen", notes, notes)
        lines += _section("not finite", self.not_finite)
        lines.append(
            "Check that the weights belong to this model and kind (base or stream), and the number of classes."
        )
        return "\n".join(lines)


def _inner(shape: Shape) -> list[int]:
    """Sizes behind the first axis; checkpoints may hold unit axes more."""
    return [size for size in shape[1:] if size != 1]


def _section(title: str, names: Iterable[str], notes: dict[str, str] | None = None) -> list[str]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        group, leaf = split_layer(name)
        groups[group].append(f"{leaf} {notes[name]}" if notes else leaf)
    lines = [f"  {title}:"] if groups else []
    for group, leaves in list(groups.items())[:GROUPS_SHOWN]:
        more = f", ... {len(leaves) - NAMES_SHOWN} more" if len(leaves) > NAMES_SHOWN else ""
        lines.append(f"    {group}: {', '.join(leaves[:NAMES_SHOWN])}{more}")
    if len(groups) > GROUPS_SHOWN:
        lines.append(f"    ... and {len(groups) - GROUPS_SHOWN} more layers")
    return lines


def split_layer(name: str) -> tuple[str, str]:
    """Layer and rest of a key: behind the last numbered component of a path, else behind the first component."""
    separator = "/" if "/" in name else "."
    parts = name.split(separator)
    numbered = [i for i, part in enumerate(parts[:-1]) if part[-1:].isdigit()]
    # The outermost numbered component names the layer in state_dicts, the last one in TensorFlow object paths.
    cut = (numbered[-1] if separator == "/" else numbered[0]) + 1 if numbered else 1
    cut = min(cut, max(len(parts) - 1, 1))
    return separator.join(parts[:cut]), separator.join(parts[cut:])
