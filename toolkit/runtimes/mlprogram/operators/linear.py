"""Matrix products."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from mvtool.runtimes.mlprogram.dtypes import DType
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator


@operator("linear", wide=True)
def linear(call: Call) -> Kernel:
    """`x weight^T + bias`; `x (*D, K)`, `weight (M, K)`, `bias (M,)`."""
    call.tensor("x")
    call.tensor("weight")
    call.optional_tensor("bias")
    return F.linear


@operator("matmul", wide=True)
def matmul(call: Call) -> Kernel:
    """Batched matrix product with broadcasting; either operand may be transposed first."""
    x, y = call.tensor("x"), call.tensor("y")
    transpose_x = call.boolean("transpose_x", False)
    transpose_y = call.boolean("transpose_y", False)
    if (transpose_x and x.rank < 2) or (transpose_y and y.rank < 2):
        raise call.error("a vector cannot be transposed")

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.transpose(-1, -2) if transpose_x else x
        return torch.matmul(x, y.transpose(-1, -2) if transpose_y else y)

    return kernel


@operator("einsum", wide=True)
def einsum(call: Call) -> Kernel:
    """`nchw,nwhu->nchu` or `chw,whu->chu`, in any letters; axes of extent 1 broadcast."""
    call.tensors("values")
    if len(call.slots) != 2:
        raise call.error(f"it has {len(call.slots)} operands, expected 2")
    equation = _only_equation(call)
    return lambda x, y: torch.einsum(equation, x, y)


def _only_equation(call: Call) -> str:
    equation = call.string("equation").replace(" ", "")
    letters = "".join(dict.fromkeys(letter for letter in equation if letter.isalpha()))
    shape = equation.translate(str.maketrans(letters, "abcdefghijklmnopqrstuvwxyz"[: len(letters)]))
    if shape not in ("abcd,adce->abce", "abc,cbd->abd"):
        raise call.error(f"the equation {equation!r} is not one of the two that the operator defines")
    return shape


@operator("scaled_dot_product_attention")
def attention(call: Call) -> Kernel:
    """`softmax(query key^T / sqrt(E) + mask) value` over the last two axes; a false mask entry is -inf."""
    query = call.tensor("query")
    call.tensor("key")
    call.tensor("value")
    mask = call.optional_tensor("attn_mask")
    scale = 1.0 / math.sqrt(query.shape[-1])
    is_boolean = mask is not None and mask.dtype is DType.BOOL

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None) -> torch.Tensor:
        scores = torch.matmul(q, k.transpose(-1, -2)) * scale
        if m is not None:
            scores = torch.where(m, scores, -math.inf) if is_boolean else scores + m
        return torch.matmul(torch.softmax(scores, -1), v)

    return kernel
