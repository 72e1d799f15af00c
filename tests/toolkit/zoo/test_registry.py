from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mvtool.errors import SourceError
from mvtool.streaming import stream_state
from mvtool.zoo import registry
from mvtool.zoo.entry import ModelEntry
from mvtool.zoo.registry import _table

MOVINETS = [entry for entry in registry.entries() if entry.family == "movinet"]
PARAMETERS = {
    "movinet_a0_base": 3_111_799,
    "movinet_a1_base": 4_690_296,
    "movinet_a2_base": 5_249_562,
    "movinet_a3_base": 7_397_545,
    "movinet_a4_base": 11_349_463,
    "movinet_a5_base": 18_650_523,
    "movinet_a0_stream": 3_748_031,
    "movinet_a1_stream": 6_447_352,
    "movinet_a2_stream": 7_326_962,
    "movinet_a3_stream": 10_986_618,
    "movinet_a4_stream": 18_136_182,
    "movinet_a5_stream": 31_495_934,
    "movinet_t0_base": 1_727_414,
    "movinet_t0_stream": 2_368_958,
    "movinet_a0_stream_3d": 3_111_799,
    "movinet_a6_base": 11_349_463 + 18_650_523,
    "movinet_a0_stream_ensemble": 2 * 3_748_031,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    """Exact counts of the official models."""
    entry = registry.get(name)
    with torch.device("meta"):
        model = entry.build()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert entry.parameters == PARAMETERS[name]


def test_parameters_with_400_classes() -> None:
    model = registry.get("movinet_a0_base").build(num_classes=400, resolution=32)
    assert sum(p.numel() for p in model.parameters()) == 2_701_999


@pytest.mark.parametrize("entry", MOVINETS, ids=lambda entry: entry.name)
def test_entry_tells_the_truth(entry: ModelEntry) -> None:
    """Every entry builds and has state exactly if it says so; the small ones take a step."""
    with torch.device("meta"):
        model = entry.build(num_classes=7).to("meta")
        if entry.name.startswith(("movinet_a0", "movinet_t0")):
            frames = torch.rand(1, 3, entry.frames_per_step, entry.resolution, entry.resolution)
            assert model(frames).shape == (1, 7)
    assert not model.training
    assert bool(stream_state(model)) == entry.stream
    assert entry.frames % entry.frames_per_step == 0


def test_unknown_name_lists_close_ones() -> None:
    with pytest.raises(SourceError, match=r"no model 'movinet_a0_strem'\. Closest names: movinet_a0_stream"):
        registry.get("movinet_a0_strem")
    with pytest.raises(SourceError, match="`mvtool zoo` lists all"):
        registry.get("resnet")


def test_unknown_options_are_refused() -> None:
    with pytest.raises(SourceError, match="'soft' is no gate; known are sigmoid, keras, ref, relu6"):
        registry.get("movinet_a0_stream").build(gate="soft")


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: entry.name)
def test_every_entry_builds_for_any_batch(entry: ModelEntry) -> None:
    """A stream's states have the batch first; networks without state take any."""
    with torch.device("meta"):
        model = entry.build(batch_size=3)
    states = [model.get_buffer(name) for name in stream_state(model)]
    batched = [state for state in states if state.ndim > 1]
    assert bool(batched) == entry.stream
    assert all(state.shape[0] == 3 for state in batched)


def test_duplicate_names_are_refused() -> None:
    with pytest.raises(SourceError, match=f"Two models of the zoo are called {MOVINETS[0].name!r}"):
        _table(MOVINETS, MOVINETS[:1])


@pytest.mark.parametrize(("module", "loaded"), [("mvtool.zoo.registry", False), ("mvtool.zoo.movinet", True)])
def test_registry_imports_no_torch(module: str, loaded: bool) -> None:
    """The second case shows that the check can fail."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(loaded)
