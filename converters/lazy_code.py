"""Graphs whose Python code is written when it is wanted.

`torch.fx` writes and compiles the code of a graph module after every change. The exporters change a graph some two hundred times and
execute it eight times, which made the code that nobody ran a fifth of an ExecuTorch conversion. The results are the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from torch.fx import GraphModule

CODE = "_code"
"""Where torch keeps the code of a graph module."""


@contextmanager
def code_when_wanted() -> Iterator[None]:
    """Inside, `GraphModule.recompile` only marks the code as out of date; calling the module or reading its code writes it.

    A module that is left behind marked writes its code at its first call outside as well.
    """
    from torch.fx import GraphModule

    write = GraphModule.recompile

    def mark(self: GraphModule) -> None:
        self.__dict__.pop(CODE, None)
        if hasattr(self._graph._codegen, "pytree_info"):
            information = self._graph._codegen.pytree_info
            self._in_spec, self._out_spec = information.in_spec, information.out_spec
        type(self).forward = forward

    def forward(self: GraphModule, *values: Any, **named: Any) -> Any:
        write(self)
        return self.forward(*values, **named)

    def code(self: GraphModule) -> str:
        if CODE not in self.__dict__:
            write(self)
        return str(self.__dict__[CODE])

    def keep(self: GraphModule, text: str) -> None:
        self.__dict__[CODE] = text

    with mock.patch.object(GraphModule, "recompile", mark):
        GraphModule._code = property(code, keep)
        try:
            yield
        finally:
            delattr(GraphModule, CODE)
