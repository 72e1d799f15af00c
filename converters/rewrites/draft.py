"""The working copy of a program while rewrites run on it.

A captured program becomes a plain `torch.fx.GraphModule` whose placeholders are the program's
inputs and states and whose constants are buffers read by `get_attr`. Rewrites change that graph;
`Draft.checked` runs one, rolls the graph a few steps and reports the difference it caused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from mvtool.converters.rewrites.wide import by_default, in_float64, widened
from mvtool.program import RewriteReport, StreamProgram

CHECK_STEPS = 3


@dataclass
class Changes:
    """What a rewrite tells of its work."""

    details: dict[str, int] = field(default_factory=dict)
    left_alone: list[str] = field(default_factory=list)

    def did(self, what: str) -> None:
        """Count one changed place."""
        self.details[what] = self.details.get(what, 0) + 1

    def left(self, place: str, reason: str) -> None:
        """Record a place that was left, and why."""
        self.left_alone.append(f"{place}: {reason}")

    def report(self, name: str, max_difference: float) -> RewriteReport:
        """Freeze into a report."""
        lines = tuple(f"{what} ({count})" for what, count in sorted(self.details.items()))
        return RewriteReport(name, sum(self.details.values()), max_difference, lines, tuple(self.left_alone))


class Draft:
    """A graph under rewriting, with the program it came from.

    Attributes:
        module: Functional graph (inputs..., states...) -> (outputs..., next states...).
        multipliers: Per state, the factor between the logical value and the graph's value.
        reports: One entry per rewrite that ran.
        start: The rollout in float32 before the first rewrite.
    """

    def __init__(self, program: StreamProgram, wide: bool = False) -> None:
        """Copy the graph of `program`.

        Args:
            program: Stays as it is.
            wide: Rewrite and compare in float64, which takes some ten times as long; to be used under
                `by_default(torch.float64)`.
        """
        self.program = program
        self.module = plain_module(program.exported)
        self.multipliers = [1.0] * len(program.states)
        self.reports: list[RewriteReport] = list(program.rewrites)
        self._steps = _check_inputs(program)
        self._initial = [torch.from_numpy(s.initial.copy()) for s in program.states]
        with by_default(torch.float32):
            self._last = self.start = self.roll(self.module)
        if wide:
            self.module = in_float64(self.module)
            self._steps, self._initial = pytree.tree_map(widened, (self._steps, self._initial))
            self._last = self.roll(self.module)

    def roll(self, module: nn.Module) -> list[Tensor]:
        """Outputs and logical states of some rolled steps on seeded random inputs."""
        states = [_times(s, m) for s, m in zip(self._initial, self.multipliers, strict=True)]
        seen: list[Tensor] = []
        outputs = len(self.program.outputs)
        with torch.no_grad():
            for inputs in self._steps:
                results = list(module(*inputs, *states))
                states = results[outputs:]
                seen += results[:outputs]
                seen += [_times(s, 1.0 / m) for s, m in zip(states, self.multipliers, strict=True)]
        return seen

    def outputs(self) -> list[Tensor]:
        """The outputs of the last rollout, without the states."""
        outputs, every = len(self.program.outputs), len(self.program.output_ports)
        return [value for index, value in enumerate(self._last) if index % every < outputs]

    def checked(self, name: str, rewrite: Callable[[Draft, Changes], None]) -> None:
        """Run `rewrite` and append its report, with the largest relative difference it caused."""
        changes = Changes()
        rewrite(self, changes)
        self.module.graph.eliminate_dead_code()
        self.module.graph.lint()
        self.module.recompile()
        self.judge(name, changes, self.module)

    def judge(self, name: str, changes: Changes, module: nn.Module) -> None:
        """Append the report of a rewrite that made `module`: the largest relative difference of its rollout to the last one."""
        last, self._last = self._last, self.roll(module)
        self.reports.append(changes.report(name, _largest_difference(self._last, last)))

    def constant(self, node: object) -> Tensor | None:
        """The tensor behind a `get_attr` node, None for anything else."""
        if isinstance(node, fx.Node) and node.op == "get_attr":
            value = getattr(self.module, str(node.target))
            return value if isinstance(value, Tensor) else None
        return None

    def add_constant(self, before: fx.Node, name: str, value: Tensor) -> fx.Node:
        """Register `value` and read it just before the node `before`."""
        unique, number = name, 0
        while hasattr(self.module, unique):
            number += 1
            unique = f"{name}_{number}"
        self.module.register_buffer(unique, value.detach().clone())
        with self.module.graph.inserting_before(before):
            node = self.module.graph.get_attr(unique)
        node.meta["val"] = value
        return node


def _largest_difference(after: list[Tensor], before: list[Tensor]) -> float:
    return max((relative_difference(a, b) for a, b in zip(after, before, strict=True)), default=0.0)


def relative_difference(after: Tensor, before: Tensor) -> float:
    """max|after - before| / max(max|before|, 1e-3)."""
    if before.numel() == 0:
        return 0.0
    # In float64 booleans and small integers have differences too.
    wanted = before.double()
    return float((after.double() - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-3)


def plain_module(exported: ExportedProgram) -> fx.GraphModule:
    """Turn an exported program without mutations into a graph module with constants as buffers."""
    signature = exported.graph_signature
    lifted = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    root, graph, copies = nn.Module(), fx.Graph(), {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in lifted:
            target = lifted[node.name]
            value = exported.state_dict[target] if target in exported.state_dict else exported.constants[target]
            name = "c_" + target.replace(".", "_")
            root.register_buffer(name, value.detach())
            copies[node] = graph.get_attr(name)
            copies[node].meta = dict(node.meta)
        elif node.op == "output":
            graph.output(tuple(copies[value] for value in node.args[0]))
        else:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    # A program that was loaded from disk reads every result of an operator, used or not.
    graph.eliminate_dead_code()
    return fx.GraphModule(root, graph)


def _check_inputs(program: StreamProgram) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(20)
    steps = CHECK_STEPS if program.is_stream else 1
    return [[_random_input(p.logical_shape, p.dtype, p.image, generator) for p in program.inputs] for _ in range(steps)]


def _random_input(shape: tuple[int, ...], dtype: str, image: bool, generator: torch.Generator) -> Tensor:
    if dtype == "bool":
        return torch.randint(0, 2, shape, generator=generator).bool()
    if dtype.startswith(("int", "uint")):
        return torch.randint(0, 2, shape, generator=generator).to(getattr(torch, dtype))
    draw = torch.rand if image else torch.randn
    return draw(shape, generator=generator, dtype=torch.float32).to(getattr(torch, dtype))


def _times(value: Tensor, factor: float) -> Tensor:
    return value if factor == 1.0 else value * factor
