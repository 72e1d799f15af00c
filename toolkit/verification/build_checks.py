"""Checks of a build as a whole, and of files by size and hash: what needs no worker."""

from __future__ import annotations

from pathlib import Path

from mvtool.build import SUFFIX_OF_RUNTIME, Build, FileEntry
from mvtool.errors import MvtoolError
from mvtool.files import sha256_of, size_of
from mvtool.golden import read_golden
from mvtool.session import Session
from mvtool.verification import bounds, frames
from mvtool.verification.lockstep import Replayed
from mvtool.verification.report import Check, CheckResult, failed, passed


def check_reference_files(build: Build) -> CheckResult:
    """The saved PyTorch programs are those that the manifest hashes."""
    entries = (build.manifest.program, *build.manifest.simulations)
    try:
        for entry in entries:
            build.check_hash(entry)
    except MvtoolError as error:
        return failed(Check.REFERENCE_FILES, str(error))
    return passed(Check.REFERENCE_FILES, f"{len(entries)} saved PyTorch programs have the hashes of the manifest")


def check_listed(build: Build) -> CheckResult:
    """The manifest lists artifacts: every one that was requested, and every one that lies in the folder."""
    listed = {entry.file for entry in build.manifest.artifacts}
    suffixes = tuple(SUFFIX_OF_RUNTIME.values())
    present = {entry.name for entry in build.folder.iterdir() if entry.name.endswith(suffixes)}
    if not listed:
        return failed(Check.LISTED, "the build manifest lists no artifact")
    if missing := [f"{wanted.runtime} {wanted.precision}" for wanted in build.manifest.missing]:
        return failed(
            Check.LISTED,
            f"{', '.join(missing)} was requested but is not in the build, because its conversion failed; convert again",
        )
    if unlisted := sorted(present - listed):
        return failed(Check.LISTED, f"{', '.join(unlisted)} lies in the build folder but is not in the build manifest")
    return passed(Check.LISTED, f"{len(listed)} artifacts, no others in the folder")


def check_golden_file(build: Build, reference: Session) -> CheckResult:
    """The golden file is the hashed one, and the PyTorch program reproduces it."""
    try:
        build.check_hash(build.manifest.golden)
        golden = read_golden(build.path(build.manifest.golden))
        reference.reset()
        steps = [golden.step(reference.manifest, index) for index in range(golden.frames)]
        error = max(golden.error(reference.step(*step), index) for index, step in enumerate(steps))
    except (MvtoolError, KeyError, ValueError) as fault:
        return failed(Check.GOLDEN_FILE, f"{type(fault).__name__}: {fault}")
    found = {"worst": error, "limit": bounds.FP32_LIMIT}
    text = f"the PyTorch stream gives the golden outputs of {golden.frames} frames with error {error:.3g}"
    if golden.frames != build.manifest.golden.frames or not error <= bounds.FP32_LIMIT:
        return failed(
            Check.GOLDEN_FILE, f"{text}; expected {build.manifest.golden.frames} frames, {bounds.FP32_LIMIT:g}", **found
        )
    return passed(Check.GOLDEN_FILE, text, **found)


def check_inputs(replayed: Replayed, reference: Session) -> CheckResult:
    """Enough inputs were replayed, and enough of them differ."""
    stream = bool(reference.manifest.states)
    shown = replayed.steps * (reference.manifest.frames_per_step if stream else 1)
    clips = frames.steps_for(stream=False, frames_per_step=reference.manifest.frames_per_step)
    least, distinct = (frames.STREAM_FRAMES, frames.MIN_DISTINCT_FRAMES) if stream else (clips, clips)
    unit = "frames" if stream else "clips"
    text = f"{shown} {unit} in {replayed.steps} steps, {replayed.distinct} of them different"
    needed = -(-distinct // reference.manifest.frames_per_step) if stream else distinct
    if shown < least or replayed.distinct < needed:
        return failed(Check.INPUTS, f"{text}; a verification takes {least} {unit}, {distinct} of them different")
    return passed(Check.INPUTS, text)


def check_size(path: Path, entry: FileEntry) -> CheckResult:
    """The file or folder has the size that the manifest says."""
    if not path.exists():
        return failed(Check.SIZE, f"{entry.file} is missing")
    size = size_of(path)
    if size < entry.bytes:
        return failed(Check.SIZE, f"truncated: {size} bytes, the build manifest says {entry.bytes}")
    if size > entry.bytes:
        return failed(Check.SIZE, f"too long: {size} bytes, the build manifest says {entry.bytes}")
    return passed(Check.SIZE, f"{size} bytes")


def check_sha256(path: Path, entry: FileEntry) -> CheckResult:
    """The file or folder has the hash that the manifest says."""
    digest = sha256_of(path) if path.exists() else "nothing"
    if digest != entry.sha256:
        return failed(
            Check.SHA256,
            f"wrong hash: {digest[:12]}..., the build manifest says {entry.sha256[:12]}...: not the file that was written",
        )
    return passed(Check.SHA256, digest)
