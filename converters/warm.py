"""The template of a conversion's workers: what they import is imported once, while the model is captured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mvtool.converters.supervisor import environment
from mvtool.forking import Template, available
from mvtool.ports import Runtime

REMEMBER = "mvtool.converters.worker:remember"
# Core ML first: its module hides ExecuTorch from coremltools, which looks for it.
MODULES = {
    Runtime.COREML: ("mvtool.converters.coreml", "mvtool.runtimes.mlprogram.evaluator"),
    Runtime.EXECUTORCH: (
        "mvtool.converters.executorch",
        "executorch.backends.xnnpack.partition.xnnpack_partitioner",
        "executorch.extension.pybindings.portable_lib",
    ),
    Runtime.TFLITE: ("mvtool.converters.tflite", "litert_torch", "ai_edge_litert.interpreter"),
}
"""What the workers of a target import sooner or later."""
ALL = ("torch", "mvtool.converters.worker", "mvtool.converters.lowering", "mvtool.quantization.pt2e")


@contextmanager
def template(targets: Iterable[Runtime], threads: int) -> Iterator[Template | None]:
    """A template for workers of these targets, or None where processes cannot be forked.

    Args:
        targets: What the workers convert to.
        threads: Threads for their frameworks.
    """
    if not available():
        yield None
        return
    wanted = set(targets)
    made = Template(ALL, environment(threads))
    try:
        if Runtime.COREML in wanted:
            made.prepare("mvtool.converters.warm:import_coremltools", "")
        for modules in (names for target, names in MODULES.items() if target in wanted):
            for name in modules:
                made.prepare("importlib:import_module", name)
        yield made
    finally:
        made.close()


def import_coremltools(_: str) -> None:
    """As the emitter does, without the frameworks that coremltools would look for."""
    from mvtool.converters.coreml_tools import coremltools

    coremltools()
