"""What libraries say while they work: kept off the screen, where steps have lines of their own, and put on file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LIBRARY_LOG = "library.log"
"""File in a phase's folder: warnings of libraries, each once."""

_LIBRARIES = ("accelerate", "datasets", "peft", "torch", "transformers", "trl", "py.warnings")
_HARMLESS = (
    # for each rollout without a verdict; the log has their share as `error`
    "All reward functions returned None",
)


class _Once(logging.Filter):
    """Lets each message through once, and those that are known to be harmless never."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        text = record.getMessage()
        if text.startswith(_HARMLESS) or text in self.seen:
            return False
        self.seen.add(text)
        return True


class _LibraryHandler(logging.FileHandler):
    """Tells a phase's own handler from others."""


class _ErrorsTo(logging.Handler):
    """Hands errors on to handlers, whose own levels are not touched: other loggers may share them."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        super().__init__(logging.ERROR)
        self.handlers = handlers

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        for handler in self.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


def quiet_libraries() -> None:
    """Keep transformers' bars and notices off the screen; inside :func:`library_log` its warnings go to the file."""
    from transformers.utils import logging as theirs

    if not any(isinstance(handler, _LibraryHandler) for handler in logging.getLogger("transformers").handlers):
        theirs.set_verbosity_error()
    theirs.disable_progress_bar()


@contextmanager
def library_log(path: Path) -> Iterator[None]:
    """Inside, what libraries warn of is added to a file, which is made where there is anything, and not shown.

    Python's warnings too, whoever raised them.
    """
    from transformers.utils import logging as theirs

    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LibraryHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_Once())
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(logger, logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    verbosity = theirs.get_verbosity()
    for logger, _, _, handlers in before:
        for shown in handlers:
            logger.removeHandler(shown)
        logger.addHandler(_ErrorsTo(handlers))
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            try:
                yield
            finally:
                logging.captureWarnings(False)
    finally:
        for logger, level, propagate, handlers in before:
            for ours in [h for h in logger.handlers if h is handler or isinstance(h, _ErrorsTo)]:
                logger.removeHandler(ours)
            for shown in handlers:
                logger.addHandler(shown)
            logger.propagate = propagate
            logger.setLevel(level)
        theirs.set_verbosity(verbosity)
        handler.close()
