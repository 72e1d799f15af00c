"""The zoo as a page: `docs/zoo.md` from the registry and the records of a survey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mvtool.ports import Precision, Runtime
from mvtool.survey import ArtifactRecord, ModelRecord
from mvtool.zoo.entry import ModelEntry, Reported

MEGA = 1e6
NONE = "–"
NOT_RUN = "not run"
FAMILY_TITLES = {
    "movinet": "MoViNet",
    "x3d": "X3D",
    "tvn": "Tiny Video Networks",
    "video_mobile_former": "Video Mobile-Former",
    "resnet3d": "ResNet3D",
    "pytorchvideo_resnet": "ResNets of PyTorchVideo",
    "r2plus1d": "R(2+1)D",
    "mobilenet_v3": "MobileNetV3",
    "tsm": "TSM",
}
INTRODUCTION = """# Models of the zoo

Written by `mvtool zoo --markdown`, which converts a model, executes every file beside the PyTorch model over {steps}, and
writes down what came of it. Weights are untrained (seeded, every layer active; residual branches are weak in X3D-XXL and Video
Mobile-Former-5G, which would blow up otherwise): the page says what computes the same, not how accurate a model is. Figures under *paper* and *reported* are printed by the sources named under each table, or derived from what they
print as the notes say; all others are counted or measured. The records in
`{records}/` hold the same and more as JSON: why a file was refused, what the delegate left, seconds, versions.

- TFLite and ExecuTorch files ran in their own runtimes on Linux x86-64. Core ML runs on Apple's systems only: its packages were executed
  by mvtool's reference evaluator (`engine` in the records), which says what a package means, not what Core ML does with it.
- *M* is 10^6; *MACs* are multiply-adds of convolutions and matrix products in one call, of one frame or clip as *input* says.
- *Files*: MB (10^6 bytes) of the file or package.
- A cell says **verified** where the file was written and every check of `mvtool verify` held, with the signal-to-noise ratio of int8
  outputs against fp32 PyTorch at the last call; `+` after it says that operators stayed outside the runtime's delegate. *refused*:
  mvtool wrote nothing and said why. *failed*: written, and a check did not hold. *not run*: nobody tried here.
- verify's limits of int8 are wider in networks where so many values lie on the border of two steps that simulations with other roundings leave them too,
  up to four times (decision 007). The cells do not tell where that was so; the checks of a build's report do.
- int8 ranges come from the bundled clip, and the pictures that verify replays are drawn, unlike anything in it: the ratios compare runtimes
  on random networks, and say little of int8 on weights and videos that belong together.
"""


def page(
    entries: Sequence[ModelEntry], records: Mapping[str, ModelRecord], macs: Mapping[str, int], folder: str
) -> str:
    """The whole page.

    Args:
        entries: All models of the registry.
        records: Of those that were surveyed, by name.
        macs: Multiply-adds of one call of each model.
        folder: Of the records, as the page shall name it.
    """
    parts = [
        INTRODUCTION.format(
            records=folder, steps="300 frames of a stream (8 frames and at least 2 clips without state)"
        )
    ]
    parts.append(_tools(records.values()))
    families: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        families.setdefault(entry.family, []).append(entry)
    for family, rows in families.items():
        parts += [
            f"## {FAMILY_TITLES.get(family, family)}\n",
            _models(rows, records, macs),
            _files(rows, records),
            _notes(rows, records),
        ]
    return "\n".join(part for part in parts if part)


def _tools(records: Iterable[ModelRecord]) -> str:
    versions = sorted({", ".join(f"{name} {version}" for name, version in sorted(r.tools.items())) for r in records})
    return "".join(f"Versions: {line}.\n" for line in versions)


def _models(entries: Sequence[ModelEntry], records: Mapping[str, ModelRecord], macs: Mapping[str, int]) -> str:
    titles = (
        "model",
        "input",
        "parameters M",
        "paper",
        "MACs M",
        "paper",
        "states",
        "state kB fp32 / int8",
        "reported accuracy",
    )
    return _table(titles, [_model(entry, records.get(entry.name), macs[entry.name]) for entry in entries])


def _model(entry: ModelEntry, record: ModelRecord | None, macs: int) -> list[str]:
    paper = entry.reported or Reported("")
    return [
        f"`{entry.name}`",
        _input(entry),
        f"{entry.parameters / MEGA:.2f}",
        _mega(paper.parameters),
        _mega(macs),
        _mega(paper.macs),
        NOT_RUN if record is None else str(record.states),
        NOT_RUN if record is None else _state_bytes(record),
        paper.accuracy or NONE,
    ]


def _input(entry: ModelEntry) -> str:
    frames = entry.frames_per_call
    return f"{frames} frame{'s' * (frames > 1)}{' a step' * entry.stream}, {entry.resolution}²"


def _mega(number: float | None) -> str:
    if number is None:
        return NONE
    value = number / MEGA
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _state_bytes(record: ModelRecord) -> str:
    if not record.states:
        return NONE
    sizes = [_largest(record.artifacts, precision) for precision in (Precision.FP32, Precision.INT8)]
    return " / ".join(NONE if size is None else f"{size / 1e3:,.0f}" for size in sizes)


def _largest(artifacts: Iterable[ArtifactRecord], precision: Precision) -> int | None:
    return max(
        (a.state_bytes for a in artifacts if a.precision is precision and a.state_bytes is not None), default=None
    )


def _files(entries: Sequence[ModelEntry], records: Mapping[str, ModelRecord]) -> str:
    columns = [(runtime, precision) for runtime in Runtime for precision in (Precision.FP32, Precision.INT8)]
    titles = ("model", *(f"{runtime.value} {precision.value}" for runtime, precision in columns))
    rows = []
    for entry in entries:
        record = records.get(entry.name)
        found = {} if record is None else {(a.runtime, a.precision): a for a in record.artifacts}
        rows.append([f"`{entry.name}`", *(_file(found.get(column)) for column in columns)])
    return _table(titles, rows)


def _file(artifact: ArtifactRecord | None) -> str:
    if artifact is None:
        return NOT_RUN
    if artifact.status != "verified":
        return artifact.status
    size = f"{(artifact.size_bytes or 0) / MEGA:.1f} MB"
    ratio = "" if artifact.snr_db is None else f", {artifact.snr_db:.0f} dB"
    return f"verified{'' if whole(artifact) else ' +'}, {size}{ratio}"


def whole(artifact: ArtifactRecord) -> bool:
    """Whether nothing stays outside the delegate, as far as the runtime tells."""
    return artifact.delegation.get("fully_accelerated", True) is not False and not artifact.delegation.get(
        "operators_outside"
    )


def _notes(entries: Sequence[ModelEntry], records: Mapping[str, ModelRecord]) -> str:
    notes: dict[str, list[str]] = {}
    for entry in entries:
        if entry.reported is not None and entry.reported.note:
            notes.setdefault(entry.reported.note, []).append(f"`{entry.name}`")
    lines = [f"- {', '.join(names)}: {note}" for note, names in notes.items()]
    for entry in entries:
        record = records.get(entry.name)
        lines += (
            []
            if record is None
            else [_note(entry.name, a) for a in record.artifacts if a.status != "verified" or not whole(a)]
        )
    sources = sorted({entry.reported.source for entry in entries if entry.reported is not None})
    lines += [f"- Reported: {source}." for source in sources]
    return "\n".join(lines) + "\n" if lines else ""


def _note(name: str, artifact: ArtifactRecord) -> str:
    what = f"- `{name}` {artifact.runtime.value} {artifact.precision.value}"
    if artifact.status != "verified":
        return f"{what} {artifact.status}: {artifact.reason}"
    outside = artifact.delegation.get("operators_outside")
    named = ", ".join(f"{count} x {name}" for name, count in outside.items()) if isinstance(outside, dict) else ""
    return f"{what}: outside the delegate: {named or 'an operator that the runtime does not name'}"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
