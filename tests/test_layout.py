"""setup.cfg lists every package, and nothing in toolkit/ hides a package that lives beside it."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def mapping() -> dict[str, Path]:
    """Top package to its folder, as `package_dir` says."""
    lines = setup_cfg()["options"]["package_dir"].strip().splitlines()
    pairs = [line.split("=") for line in lines]
    return {package.strip(): ROOT / folder.strip() for package, folder in pairs}


def packages_on_disk() -> set[str]:
    found = set()
    for package, folder in mapping().items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(folder).parts]))
    return found


def test_every_package_is_listed() -> None:
    listed = setup_cfg()["options"]["packages"].split()
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_on_disk()


def test_every_module_is_in_a_package() -> None:
    for folder in mapping().values():
        for module in folder.rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module} lies in a folder without __init__.py"


def test_toolkit_hides_no_sibling() -> None:
    siblings = {package.split(".")[1] for package in mapping() if "." in package}
    assert siblings == {"converters", "quantization", "android_bench", "ios_bench"}
    inside = {path.stem for path in mapping()["mvtool"].iterdir()}
    assert not siblings & inside


def test_data_files_are_shipped() -> None:
    globs = [glob.strip() for glob in setup_cfg()["options.package_data"]["mvtool"].split(",")]
    toolkit = mapping()["mvtool"]
    shipped = {path for glob in globs for path in toolkit.glob(glob)}
    data = {path for path in (toolkit / "data").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {toolkit / "data" / "demo_clip.mp4", toolkit / "py.typed"} <= shipped
    assert data <= shipped


def test_tests_mirror_the_folders() -> None:
    """`tests/x/test_y.py` tests a module of folder `x`; only whole-project tests lie at the top."""
    top = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert top <= {"converters", "goldens", "quantization", "toolkit", "android_bench", "ios_bench", "benchmarks"}
