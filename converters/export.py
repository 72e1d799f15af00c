"""torch.export with errors that name the place in the user's code."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.nn.modules.module import register_module_buffer_registration_hook
from torch.utils import _pytree as pytree

from mvtool.converters import capture_checks, places
from mvtool.converters.calling import CallPlan
from mvtool.errors import CaptureError

_DATA_DEPENDENT = (
    "GuardOnDataDependent",
    "data-dependent",
    "data dependent",
    "Could not guard on",
    "Could not extract specialized integer",
)


def export_functional(module: nn.Module, plan: CallPlan, tensors: Sequence[Tensor]) -> ExportedProgram:
    """Export one step and make the graph functional.

    Only what functionalization needs is decomposed: convolutions, pools and activations stay the
    operators that the module called, so that later passes recognise them.

    Args:
        module: In eval mode.
        plan: How to call it.
        tensors: One example per input spec.

    Raises:
        CaptureError: torch.export refuses the module, or the graph holds what no artifact may hold.
    """
    arguments, keywords = plan.arguments([tensor.clone() for tensor in tensors])
    with torch.no_grad(), _quiet(), _assignments_as_copies(module):
        try:
            exported = torch.export.export(module, arguments, keywords, strict=False)
        except Exception as error:
            raise _explain(error, module) from error
        capture_checks.check_graph(exported)
        _merge_names(exported, module)
        try:
            functional: ExportedProgram = exported.run_decompositions({})
        except Exception as error:
            raise _explain(error, module) from error
    return functional


@contextmanager
def _assignments_as_copies(module: nn.Module) -> Iterator[None]:
    """Let `self.buffer = value` in forward count as `self.buffer.copy_(value)`.

    torch.export 2.13 does that for the outermost module only, and there it fails ("missing nn_module_stack
    metadata") or exchanges values wrongly where an input or another buffer is assigned, as in
    `self.previous = frame` or `self.a, self.b = self.b, self.a`.
    """
    members = {id(child) for child in module.modules()}
    entered: list[tuple[dict[str, Tensor | None], str, Tensor]] = []

    def enter(_module: nn.Module, _arguments: object) -> None:
        # Taken here, not before: while it traces, torch.export has put stand-ins in place of the buffers.
        entered[:] = [
            (child._buffers, name, value)
            for child in module.modules()
            for name, value in child._buffers.items()
            if value is not None
        ]

    def leave(_module: nn.Module, _arguments: object, result: object) -> object:
        assigned = [(old, slot[name]) for slot, name, old in entered if slot.get(name) is not old]
        storages = {old.untyped_storage()._cdata for old, _ in assigned}
        # An old value that the model returns must not become the new one.
        kept = pytree.tree_map_only(
            Tensor, lambda t: t.clone() if t.untyped_storage()._cdata in storages else t, result
        )
        for old, value in assigned:
            if value is not None:
                old.copy_(value)
        for slot, name, old in entered:
            slot[name] = old
        return kept

    # Typed as in torch, whose signature forgets that such a hook may give another tensor.
    def separate(child: nn.Module, _name: str, value: Tensor | None) -> Any:
        # What is assigned must not change when the buffer that it came from is written.
        return value.clone() if value is not None and id(child) in members else None

    handles = [
        register_module_buffer_registration_hook(separate),
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _merge_names(exported: ExportedProgram, module: nn.Module) -> None:
    """Leave one graph input for a buffer whose submodule is registered under two names.

    run_decompositions of torch 2.13 breaks on such a buffer when it is written.
    """
    first = {id(value): name for name, value in reversed([*module.named_buffers(remove_duplicate=False)])}
    specs = exported.graph_signature.input_specs
    nodes = [node for node in exported.graph.nodes if node.op == "placeholder"]
    buffers = {s.target: (s, node) for s, node in zip(specs, nodes, strict=True) if s.kind is InputKind.BUFFER}
    for name, (spec, node) in buffers.items():
        kept = first[id(module.get_buffer(str(name)))]
        if kept != name:
            node.replace_all_uses_with(buffers[kept][1])
            exported.graph.erase_node(node)
            specs.remove(spec)
            exported.state_dict.pop(str(name), None)
            exported.constants.pop(str(name), None)


def _explain(error: Exception, module: nn.Module) -> CaptureError:
    text = f"{type(error).__name__}: {error}"
    place = places.of_error(error, module)
    if any(sign in text for sign in _DATA_DEPENDENT):
        return CaptureError(
            f"The model's control flow or shapes depend on the values of a tensor{place}: {_first(error)}. A graph has one "
            "path for every frame: compute both sides and choose with torch.where, and avoid .item(), bool(tensor) and nonzero."
        )
    return CaptureError(
        f"torch.export cannot turn the model into a graph{place}: {type(error).__name__}: {_first(error)}."
    )


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no message"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's warnings, log lines and the graphs it prints when it fails; what matters becomes an error of ours."""
    log = logging.getLogger("torch")
    level = log.level
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
