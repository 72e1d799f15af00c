"""Converted PyTorch modules, executed from disk, against PyTorch itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mvtool.errors import ManifestError
from mvtool.runtimes.mlprogram.program import ColorLayout, ImageFeature


class DepthwiseNet(nn.Module):
    """Depthwise and strided convolutions, batch norm, squeeze-excite, hard-swish, an added state."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 5, 1, 2, groups=8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = nn.functional.hardswish(self.norm(self.stem(x)))
        y = nn.functional.relu6(self.depthwise(y)) + memory
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        z = nn.functional.avg_pool2d(y * gate, 3, 2, 1, count_include_pad=False)
        return torch.softmax(self.head(z.flatten(2).mean(-1)), -1), y + memory


class Cell(nn.Module):
    """A gated recurrent cell: linear layers, chunks, products."""

    def __init__(self) -> None:
        super().__init__()
        self.from_x, self.from_h = nn.Linear(6, 12), nn.Linear(4, 12)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        x_r, x_z, x_n = self.from_x(x).chunk(3, -1)
        h_r, h_z, h_n = self.from_h(h).chunk(3, -1)
        z = torch.sigmoid(x_z + h_z)
        return (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h


class Attention(nn.Module):
    """Layer norm, multi-head attention and a GELU feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + nn.functional.gelu(self.out(y.transpose(1, 2).reshape(batch, length, 8)))


class Video(nn.Module):
    """Convolution and pooling over time, and what decoders use: transposed convolution, resizing, shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.max_pool3d(torch.relu(self.conv(x)), (1, 2, 2), (1, 2, 2)).mean(2)
        y = nn.functional.interpolate(self.up(y), scale_factor=2, mode="bilinear")
        y = nn.functional.pixel_shuffle(nn.functional.pad(y, (1, 1, 1, 1), mode="reflect"), 2)
        return torch.cat([y, torch.cumsum(y, -1)], 1)[:, :, ::2]


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "depthwise": (DepthwiseNet, {"x": (1, 3, 16, 16), "memory": (1, 8, 8, 8)}),
    "cell": (Cell, {"x": (2, 6), "h": (2, 4)}),
    "attention": (Attention, {"x": (1, 5, 8)}),
    "video": (Video, {"x": (1, 3, 4, 8, 8)}),
}


def build_model(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    make, shapes = MODELS[name]
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model, {key: torch.randn(shape) for key, shape in shapes.items()}


def convert(ct: Any, program: Any, inputs: list[Any], outputs: int, precision: str, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            program.run_decompositions({}),
            convert_to="mlprogram",
            inputs=inputs,
            outputs=[ct.TensorType(name=f"out{i}") for i in range(outputs)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=getattr(ct.precision, precision),
            skip_model_load=True,
        )
        model.save(str(path))
    return path


@pytest.mark.parametrize(("precision", "tolerance"), [("FLOAT32", 2e-6), ("FLOAT16", 2e-2)])
@pytest.mark.parametrize("name", list(MODELS))
def test_converted_modules_equal_torch(
    name: str, precision: str, tolerance: float, coremltools: Any, load: Any, tmp_path: Path
) -> None:
    model, example = build_model(name)
    expected = model(*example.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    inputs = [coremltools.TensorType(name=key, shape=tuple(x.shape)) for key, x in example.items()]
    program = torch.export.export(model, tuple(example.values()))
    path = convert(coremltools, program, inputs, len(expected), precision, tmp_path / "model.mlpackage")

    dtype = np.float16 if precision == "FLOAT16" else np.float32
    found = load(path).run({key: x.numpy().astype(dtype) for key, x in example.items()})

    for i, wanted in enumerate(expected):
        assert found[f"out{i}"].dtype == dtype
        np.testing.assert_allclose(found[f"out{i}"], wanted.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_image_port_with_scale_and_bias(layout: str, coremltools: Any, load: Any, tmp_path: Path) -> None:
    class Means(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    program = torch.export.export(Means().eval(), (torch.rand(1, 3, 4, 6),))
    image = coremltools.ImageType(
        name="frame", shape=(1, 3, 4, 6), scale=1 / 255, bias=[0.5, 0.0, -0.5], color_layout=layout
    )
    evaluator = load(convert(coremltools, program, [image], 1, "FLOAT32", tmp_path / "image.mlpackage"))
    port = evaluator.program.inputs[0]
    assert isinstance(port, ImageFeature)
    assert port.layout is ColorLayout[layout]
    assert (port.height_px, port.width_px) == (4, 6)

    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    found = evaluator.run({"frame": port.tensor(red)})["out0"]
    wanted = [[1.5, 0.0, -0.5]] if layout == "RGB" else [[0.5, 0.0, 0.5]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    with pytest.raises(ManifestError, match="expected uint8"):
        port.tensor(red[:3])


def test_fp16_results_are_rounded_after_every_operation(save_program: Any, load: Any, rng: Any) -> None:
    x, y = rng.normal(size=50).astype(np.float16), rng.normal(size=50).astype(np.float16)

    def build(mb: Any, p: dict[str, Any]) -> list[Any]:
        product = mb.mul(x=p["x"], y=p["y"])
        return [product, mb.add(x=product, y=p["x"]), mb.exp(x=mb.mul(x=p["x"], y=np.float16(8)))]

    evaluator = load(save_program({"x": x, "y": y}, build))
    found = list(evaluator.run({"x": x, "y": y}).values())
    # numpy's fp16 arithmetic rounds after every operation as well.
    np.testing.assert_array_equal(found[0], x * y)
    np.testing.assert_array_equal(found[1], x * y + x)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(
            found[2], np.exp((x * np.float16(8)).astype(np.float32)).astype(np.float16), rtol=1e-3
        )
    assert found[0].dtype == np.float16


def test_quantized_program_equals_its_pt2e_program(coremltools: Any, load: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized, example = quantize_depthwise_net()
        program = torch.export.export(quantized, example)
        inputs = [
            coremltools.TensorType(name=name, shape=tuple(x.shape))
            for name, x in zip(("x", "memory"), example, strict=True)
        ]
        path = convert(coremltools, program, inputs, 2, "FLOAT32", tmp_path / "int8.mlpackage")
        evaluator = load(path)
        kinds = {operation.kind for operation in evaluator.program.operations}
        assert {"quantize", "dequantize", "constexpr_affine_dequantize"} <= kinds
        for seed in range(5):
            torch.manual_seed(seed)
            frame = [torch.randn_like(x) for x in example]
            wanted = quantized(*frame)
            found = evaluator.run({"x": frame[0].numpy(), "memory": frame[1].numpy()})
            for i in range(2):
                np.testing.assert_allclose(found[f"out{i}"], wanted[i].detach().numpy(), atol=0.05)
                assert np.abs(found[f"out{i}"] - wanted[i].detach().numpy()).mean() < 2e-3


def quantize_depthwise_net() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    model, inputs = build_model("depthwise")
    example = tuple(inputs.values())
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(model, example).module(), quantizer)
    for _ in range(4):
        prepared(*(torch.randn_like(x) for x in example))
    return convert_pt2e(prepared), example
