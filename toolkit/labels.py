"""Names of the classes that a model tells apart.

The Kinetics lists ship in the package, one class per line, in the order of the released MoViNet and X3D
checkpoints: alphabetical, as in `kinetics600_labels.txt` of the TensorFlow Hub models. `motion` names the classes of
`mvtool.datasets.motion`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mvtool.errors import UsageError

BUNDLED = {
    "kinetics400": "kinetics400_labels.txt",
    "kinetics600": "kinetics600_labels.txt",
    "motion": "motion_labels.txt",
}


def load(name: str) -> tuple[str, ...]:
    """Labels of a bundled list, or of a text file with one label per line.

    Args:
        name: `kinetics400`, `kinetics600` or a path.

    Raises:
        UsageError: No such list or file, or the file is no text of one label per line.

    Example:
        >>> load("kinetics600")[:2]
        ('abseiling', 'acting in play')
    """
    if name in BUNDLED:
        text = (files("mvtool") / "data" / BUNDLED[name]).read_text(encoding="utf-8")
        return tuple(text.splitlines())
    return _from_file(Path(name))


def for_classes(name: str | None, count: int) -> tuple[str, ...]:
    """Labels for `count` classes; `class 0`, `class 1`, ... where no list is named.

    Raises:
        UsageError: The list has another number of labels.
    """
    if name is None:
        return tuple(f"class {index}" for index in range(count))
    labels = load(name)
    if len(labels) != count:
        raise UsageError(
            f"The label list {name!r} holds {len(labels)} labels, and the model gives {count} scores. "
            f"Choose a list of {count} labels with --labels: {', '.join(BUNDLED)} or a text file."
        )
    return labels


def _from_file(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise UsageError(
            f"There is no label list {str(path)!r}. Known lists: {', '.join(BUNDLED)}; or give a text file."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}. Expected one label per line.") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UsageError(f"{path} holds no label. Expected one label per line.")
    return tuple(line.strip() for line in lines)
