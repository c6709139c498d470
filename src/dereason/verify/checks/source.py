"""A check that the user names: where its source is, what it wants, and a hash of it. Nothing is imported or run here.

Importing a module runs it, and what a user's module does belongs into the guarded worker.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from dereason.errors import DereasonError

PARAMETERS = ("answer", "response", "reference", "metadata", "options", "source")
"""What a check may ask for, by the names of its parameters."""


@dataclass(frozen=True)
class Source:
    """A function of the user's."""

    name: str
    """``package.module:function``."""
    path: Path
    """The file that defines it."""
    parameters: tuple[str, ...]
    """What it wants, of ``PARAMETERS``."""
    digest: str
    """Of the whole file: what a function calls is mostly beside it."""


def search_path() -> list[str]:
    """Where modules are looked for: as Python does, and behind that in the folder in which the command was called."""
    return [*(place for place in sys.path if place), str(Path.cwd())]


def find(name: str) -> Source:
    """Find the function that a name stands for.

    Args:
        name: ``package.module:function``.

    Raises:
        DereasonError: there is no such module, file or function, or the function wants what there is not.
    """
    module, function = name.split(":")
    path = _file(name, module, search_path())
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise DereasonError(f"answer_check {name!r}: {path} cannot be read: {exc.strerror}", "mend the file") from exc
    return _read(name, function, path, text)


def _file(name: str, module: str, places: Sequence[str] | None) -> Path:
    parts = module.split(".")
    spec = None
    for at in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: at + 1]), places)
        if spec is None:
            break
        places = spec.submodule_search_locations
        if places is None and at + 1 < len(parts):
            spec = None
            break
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise DereasonError(
            f"answer_check {name!r}: there is no module {module!r} in Python's path or in {Path.cwd()}",
            "call the command in the folder where the module lies, install it, or set PYTHONPATH",
        )
    return Path(spec.origin)


@lru_cache(maxsize=100)
def _read(name: str, function: str, path: Path, text: bytes) -> Source:
    try:
        tree = ast.parse(text, str(path))
    except (SyntaxError, ValueError) as exc:
        raise DereasonError(f"answer_check {name!r}: {path} is no Python: {exc}", "mend the file") from exc
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found:
        raise DereasonError(
            f"answer_check {name!r}: {path} has no 'def {function}' at its top level",
            "name a function that the file defines",
        )
    given = found[-1].args
    parameters = tuple(argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs))
    if given.posonlyargs or given.vararg or given.kwarg or not parameters or not set(parameters) <= set(PARAMETERS):
        raise DereasonError(
            f"answer_check {name!r}: {function} takes {ast.unparse(given) or 'nothing'}",
            f"let its parameters be some of {', '.join(PARAMETERS)}",
        )
    if not {"answer", "response"} & set(parameters):
        raise DereasonError(
            f"answer_check {name!r}: {function} takes neither the answer nor the response",
            "give it a parameter 'answer' (what was found in the response) or 'response' (all of it)",
        )
    return Source(name, path, parameters, hashlib.sha256(text).hexdigest()[:16])
