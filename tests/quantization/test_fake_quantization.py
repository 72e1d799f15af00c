from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from normed_stream import CLASSES, SIZE, WIDTH, NormedStream, fake_quantized, graph_of, int8_logits, normed_stream
from torch import Tensor, fx
from torch.nn import functional

from mvtool.ports import Preprocessing
from mvtool.program import ModelInfo
from mvtool.quantization.fake_quantization import (
    FADING,
    RecentExtremes,
    fake_quantizers,
    prepare,
    ranges_kept,
    set_rounding,
)
from mvtool.quantization.plan import port_nodes, result_nodes
from mvtool.quantization.training_graph import training_graph
from mvtool.streaming.state import reset, stream_state
from mvtool.training.stream_step import backward
from mvtool.zoo import registry
from mvtool.zoo.untrained import deterministic_weights


@pytest.fixture(scope="module")
def prepared() -> fx.GraphModule:
    return prepare(graph_of(normed_stream(2), 2, 4))


def quantizer_of(module: fx.GraphModule, node: Any) -> Any:
    """The fake quantizer that makes the value of a node; None where it is another operator."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def operators(module: fx.GraphModule, name: str) -> list[Any]:
    return [node for node in module.graph.nodes if node.op == "call_function" and name in str(node.target)]


def test_the_graph_computes_what_the_module_computes_and_so_do_its_gradients() -> None:
    clips, labels = torch.rand(2, 3, 8, SIZE, SIZE), torch.tensor([1, 3])
    stream = normed_stream(2)
    module = fake_quantized(stream, 2, 4)
    set_rounding(module, False)
    found: list[dict[str, Tensor]] = []
    for learner in (normed_stream(2), module):
        told = backward(learner, clips, labels, subclips=2, label_smoothing=0.0)
        # The graph reads the parameters of the module it was made of.
        owner = learner if isinstance(learner, NormedStream) else stream
        gradients = {name: p.grad for name, p in owner.named_parameters() if p.grad is not None}
        found.append({"told": told, **gradients, **{n: owner.get_buffer(n) for n in stream_state(normed_stream())}})
    states = dict(zip(stream_state(stream), stream_state(module), strict=True))
    for name, expected in found[0].items():
        value = module.get_buffer(states[name]) if name in states else found[1][name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    assert len(found[0]) == 1 + len(list(stream.parameters())) + 4


def test_weights_are_rounded_per_output_channel(prepared: fx.GraphModule) -> None:
    linear = operators(prepared, "aten.conv3d") + operators(prepared, "aten.linear")
    assert len(linear) == 6
    clips = [
        torch.rand(2, 3, 4, SIZE, SIZE),
        *(torch.zeros(n.meta["val"].shape) for n in port_nodes(prepared.graph)[1:]),
    ]
    prepared(*clips)
    for node in linear:
        quantizer = quantizer_of(prepared, node.args[1])
        assert (quantizer.quant_min, quantizer.quant_max) == (-127, 127)
        assert quantizer.qscheme is torch.per_channel_symmetric
        assert quantizer.zero_point.abs().max() == 0
        assert len(quantizer.scale) in (WIDTH, 4, CLASSES)
    assert not operators(prepared, "batch_norm")


def test_feature_maps_are_rounded_where_they_are_made(prepared: fx.GraphModule) -> None:
    for name in ("hardswish", "mul.Tensor", "add.Tensor"):
        maps = [n for n in operators(prepared, name) if n.meta.get("val") is not None and n.meta["val"].dim() == 5]
        for node in maps:
            is_map = node.meta["val"].shape[-1] > 1
            assert all((quantizer_of(prepared, user) is not None) is is_map for user in node.users), node
    # The factor and the norm are part of the weights: nothing stands between the projection and its rounding.
    convolutions = operators(prepared, "aten.conv3d")
    on_maps = [n for n in convolutions if n.meta["val"].shape[-1] > 1]
    assert len(on_maps) == 3
    for node in on_maps:
        (reader,) = node.users
        quantizer = quantizer_of(prepared, reader)
        assert (quantizer.quant_min, quantizer.quant_max) == (-128, 127)
        assert quantizer.qscheme is torch.per_tensor_affine


def test_the_vector_path_and_float_states_are_not_rounded(prepared: fx.GraphModule) -> None:
    weights = {n.args[1] for n in operators(prepared, "aten.conv3d") + operators(prepared, "aten.linear")}
    for node in prepared.graph.nodes:
        if node.op != "call_module" or node in weights:
            continue
        source = node.args[0]
        gate = [user for user in node.users if "mul" in str(user.target) and user.meta["val"].shape[-1] > 1]
        assert source.meta["val"].shape[-1] > 1 or gate, f"{node.name} rounds a vector"
    places: dict[str, Any] = dict(
        zip(("frame", *stream_state(normed_stream())), port_nodes(prepared.graph), strict=True)
    )
    results: dict[str, Any] = dict(
        zip(("logits", *stream_state(normed_stream())), result_nodes(prepared.graph), strict=True)
    )
    for name in ("clock.frame_count", "excite.pool.buffer", "pool.buffer"):
        assert all(quantizer_of(prepared, user) is None for user in places[name].users)
        assert results[name].op == "call_function"


def test_both_ends_of_an_int8_state_share_a_scale(prepared: fx.GraphModule) -> None:
    places: dict[str, Any] = dict(
        zip(("frame", *stream_state(normed_stream())), port_nodes(prepared.graph), strict=True)
    )
    results: dict[str, Any] = dict(
        zip(("logits", *stream_state(normed_stream())), result_nodes(prepared.graph), strict=True)
    )
    (entry,) = places["temporal.stream.buffer"].users
    window = results["temporal.stream.buffer"].args[0]
    assert "cat" in str(window.target)
    before, new = window.args[0]
    assert before is entry
    assert quantizer_of(prepared, before) is quantizer_of(prepared, new)
    (camera,) = places["frame"].users
    quantizer = quantizer_of(prepared, camera)
    assert (float(quantizer.scale), int(quantizer.zero_point)) == (float(np.float32(1 / 255)), -128)


def test_rounding_is_that_of_the_artifacts() -> None:
    """Same clip, same ranges: tuning sees the logits that the simulation of the int8 artifact gives, not just similar ones."""
    frames = 8
    clip = torch.rand(1, 3, frames, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    clip = torch.round(clip * 255) / 255
    stream = normed_stream()
    int8 = int8_logits(stream, clip, clip)
    module = fake_quantized(stream, 1, frames)
    with torch.no_grad():
        exact = stream(clip)
        set_rounding(module, False)
        module(clip)
        set_rounding(module, True)
        reset(module)
        with ranges_kept(module):
            rounded = module(clip)
    error = (int8 - exact).abs().max()
    assert error > 3e-4
    assert (rounded - int8).abs().max() < 0.01 * error


def test_ranges_widen_at_once_shrink_slowly_and_can_be_kept() -> None:
    observer = RecentExtremes(dtype=torch.int8, quant_min=-128, quant_max=127)
    observer(torch.tensor([-1.0, 3.0]))
    observer(torch.tensor([-2.0, 1.0]))
    assert float(observer.min_val) == -2.0
    assert float(observer.max_val) == pytest.approx(3.0 - FADING * 2.0)
    stream = normed_stream()
    module = fake_quantized(stream, 1, 2)
    dark, bright = torch.full((1, 3, 2, SIZE, SIZE), 0.1), torch.ones(1, 3, 2, SIZE, SIZE)

    def reach() -> list[float]:
        found = [quantizer.activation_post_process for quantizer in fake_quantizers(module)]
        return [float(o.max_val) for o in found if isinstance(o, RecentExtremes)]

    module(dark)
    narrow = reach()
    with ranges_kept(module):
        module(bright)
    assert reach() == narrow
    module(bright)
    assert max(reach()) > max(narrow)
    functional.cross_entropy(module(bright), torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in stream.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["movinet_nano_stream_3d", "tsm_mobilenet_v3_small_stream", "resnet3d_50_stream", "movinet_a3_stream"]
)
def test_streams_of_every_family_can_be_tuned(name: str) -> None:
    entry, size = registry.get(name), 32
    frames = 2 * entry.frames_per_step

    def filled(videos: int) -> torch.nn.Module:
        module = entry.build(num_classes=5, resolution=size, batch_size=videos)
        deterministic_weights(module, 0)
        return module.eval()

    many = filled(2)
    info = ModelInfo(name, preprocessing=Preprocessing(resize_short_side=size, crop=(size, size)))
    graph = training_graph(filled(1), many, (2, 3, frames, size, size), info)
    clips = torch.rand(2, 3, frames, size, size)
    states = [torch.zeros(node.meta["val"].shape) for node in port_nodes(graph.module.graph)[1:]]
    with torch.no_grad():
        exact = many(clips)
        torch.testing.assert_close(graph.module(clips, *states)[0], exact, rtol=1e-4, atol=1e-5)
    rounded = prepare(graph)(clips, *states)[0]
    assert not torch.equal(rounded, exact)
    rounded.sum().backward()
    assert all(parameter.grad is not None for parameter in many.parameters())
