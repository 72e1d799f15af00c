"""Calling coremltools: a quick import, its chatter collected, its failures told as ours."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import ModuleType
from typing import Any

from mvtool.errors import ConversionError, MvtoolError
from mvtool.extras import require

# coremltools 9.0 imports each of these when it finds it, to offer converters that mvtool does not use.
# With TensorFlow beside it the import takes 12 s, without them 3 s.
UNUSED_BY_US = ("tensorflow", "sklearn", "xgboost", "libsvm", "transformers", "executorch", "torchao")
# Said at every import on Linux or with today's PyTorch, whatever the model.
HARMLESS = ("has not been tested with coremltools", "Failed to load _ML", "is not supported. Minimum required version")


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Let `import` fail for those of `packages` that are not loaded yet."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules[name] is None:
                del sys.modules[name]


class _Collector(logging.Handler):
    """Keeps what coremltools logs, level warning and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.messages.append(" ".join(record.getMessage().split()))


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect the log of coremltools, keep its progress bars off the terminal.

    An integer overflow while coremltools folds constants is an error here: it stands for a wrong
    constant in the model, and coremltools lets it pass.

    Yields:
        The messages, filled while the context is open.
    """
    logger, collector = logging.getLogger("coremltools"), _Collector()
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [collector], False
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", "overflow encountered in scalar", RuntimeWarning)
            yield collector.messages
    finally:
        logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def without_validation() -> Iterator[None]:
    """Switch off the validation of the whole program after each of coremltools' 111 passes.

    It takes 40 % of a conversion and changes nothing; the written file is checked and executed instead.
    """
    from coremltools.converters.mil.mil.program import Program

    validate = Program.validate
    Program.validate = lambda self, check_essential_scope=False: None
    try:
        yield
    finally:
        Program.validate = validate


def coremltools() -> ModuleType:
    """The package, imported without the frameworks that this conversion does not need.

    Raises:
        MissingExtraError: coremltools is not installed.
    """
    if "coremltools" in sys.modules:
        return sys.modules["coremltools"]
    with _hidden(UNUSED_BY_US), quiet():
        return require("coremltools", "to write Core ML models")


@contextmanager
def conversion_errors(model: str, log: list[str]) -> Iterator[None]:
    """Turn whatever coremltools raises into a `ConversionError` that names the operator.

    Args:
        model: Name of the model, for the message.
        log: Messages collected by `quiet`; coremltools logs where it was before it raises.
    """
    try:
        yield
    except MvtoolError:
        raise
    except Exception as error:
        place = next((m for m in reversed(log) if "ERROR" in m), "")
        where = f" ({place.replace('ERROR - ', '').strip(': ')})" if place else ""
        raise ConversionError(
            f"coremltools could not write {model!r} as an ML program{where}: {type(error).__name__}: {error}. "
            "Expected operators that Core ML has. Replace the operator named here in the model, or convert "
            "without the target 'coreml'."
        ) from error


def remarks(log: list[str]) -> list[str]:
    """Messages of coremltools that say something about this model, each once."""
    return list(dict.fromkeys(m for m in log if not any(known in m for known in HARMLESS)))


Specification = Any
"""`coremltools.proto.Model_pb2.Model`; coremltools ships no types."""
