"""Settings from YAML: read with the line of each key, overridden, checked, and described field by field."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from dereason.errors import DereasonError

S = TypeVar("S", bound=BaseModel)
Lines = dict[tuple[str | int, ...], int | str]


ADDED_BY_ALIASES = 100_000
"""Most values that the aliases of one YAML text may add up to: far more than any recipe has, and built in a second."""

DEEPEST = 100
"""Most levels of nesting in one YAML text."""


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """A YAML mapping (safe-loaded, nothing in it shared) and the line of each of its keys.

    Raises:
        DereasonError: unreadable, not YAML, a key twice, no mapping, or aliases that stand inside what they name or add
            up to too much.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DereasonError(f"{path}: cannot be read: {exc}", "check the path") from exc
    lines: Lines = {}
    data = _load(text, str(path), "mend that line", lines)
    if not isinstance(data, dict):
        raise DereasonError(f"{path}: not a recipe", "a recipe is a mapping; copy a shipped one (`dereason recipes`)")
    return data, lines


def _load(text: str, where: str, mend: str, lines: Lines) -> Any:
    """A YAML text as plain values; the lines of its keys go into ``lines``.

    Each alias gets a copy of what it names: with the shared object that PyYAML makes of it, an override of one place
    would change all the others.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            node = _Copy(where).of(node)
            _collect(node, (), lines, where)  # before it is built, which puts merged keys into their places
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise DereasonError(f"{where}: {line}not YAML: {getattr(exc, 'problem', None) or exc}", mend) from exc
    except RecursionError as exc:
        raise _too_deep(where) from exc
    # a date that there is not, an integer of thousands of digits, a tag before something else (!!bool 3)
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as exc:
        raise DereasonError(f"{where}: not YAML: {exc}", "quote the value if it is a text") from exc


def _too_deep(where: str) -> DereasonError:
    return DereasonError(f"{where}: nested more than {DEEPEST} levels deep", "write it flatter")


class _Copy:
    """Copies a tree of nodes so that no mapping or list in it stands in two places."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.seen: set[int] = set()
        self.added = 0

    def of(self, node: yaml.Node, around: tuple[yaml.Node, ...] = ()) -> yaml.Node:
        """The copy of a node that stands inside others."""
        line = f"{self.where}: line {node.start_mark.line + 1}: "
        if any(node is outer for outer in around):
            raise DereasonError(f"{line}an alias stands inside what it names", "write out what is meant")
        if len(around) > DEEPEST:
            raise _too_deep(self.where)
        self.added += id(node) in self.seen
        self.seen.add(id(node))
        if self.added > ADDED_BY_ALIASES:
            raise DereasonError(
                f"{line}aliases of aliases add up to more than {ADDED_BY_ALIASES:,} values", "use fewer of them"
            )
        inside = (*around, node)
        if isinstance(node, yaml.MappingNode):
            value: Any = [(self.of(k, inside), self.of(v, inside)) for k, v in node.value]
        elif isinstance(node, yaml.SequenceNode):
            value = [self.of(item, inside) for item in node.value]
        else:
            if not _encodable(node.value):  # "\ud800": no file could hold the resolved recipe
                raise DereasonError(f"{line}half of a surrogate pair in {node.value!r}", "write the whole character")
            return node  # a scalar becomes a value that cannot be changed
        return type(node)(node.tag, value, node.start_mark, node.end_mark, node.flow_style)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _collect(node: Any, at: tuple[str | int, ...], lines: Lines, where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            if here in lines:
                raise DereasonError(
                    f"{where}: line {key.start_mark.line + 1}: the key {key.value!r} stands twice",
                    "remove one",
                )
            lines[here] = key.start_mark.line + 1
            _collect(value, here, lines, where)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*at, i)] = value.start_mark.line + 1
            _collect(value, (*at, i), lines, where)


def path_parts(key: str) -> list[str | int]:
    """A dotted path as keys and list positions."""
    return [int(p) if re.fullmatch("[0-9]{1,9}", p) else p for p in key.strip().split(".")]


def apply_override(data: dict[str, Any], text: str) -> None:
    """Set one ``key.path=value`` in nested mappings and lists, in place.

    Raises:
        DereasonError: no ``=``, bad YAML, or a path that does not exist in a list.
    """
    if "=" not in text:
        raise DereasonError(f"--set {text!r} has no '='", "write it as --set key.path=value")
    key, raw = text.split("=", 1)
    value = _load(raw, f"--set {text!r}", "quote the value", {})
    parts = path_parts(key)
    here: Any = data
    for depth, part in enumerate(parts[:-1]):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(here, dict):
            if not isinstance(here.get(part), dict | list):
                here[part] = {}
            here = here[part]
        else:
            where = ".".join(map(str, parts[: depth + 1]))
            raise DereasonError(f"--set {text!r}: there is no {where}", "list items are numbered from 0")
    last = parts[-1]
    if isinstance(here, list):
        if not isinstance(last, int) or last >= len(here):
            raise DereasonError(f"--set {text!r}: there is no item {last}", "list items are numbered from 0")
        here[last] = value
    else:
        here[last] = value


def parse(model: type[S], data: dict[str, Any], where: str, lines: Lines | None = None) -> S:
    """Validate data into a settings model.

    Raises:
        DereasonError: the first problem found, with its line where known, the field, and a mend.
    """
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        error = exc.errors()[0]
        more = f" (and {exc.error_count() - 1} more)" if exc.error_count() > 1 else ""
        keys = _real_path(error["loc"], data)
        line = next((lines[k] for i in range(len(keys), 0, -1) if lines and (k := keys[:i]) in lines), None)
        at = f"line {line}: " if isinstance(line, int) else f"{line}: " if line else ""
        field = ".".join(map(str, keys)) or model.__name__.lower()
        cause, mend = _explain(error, model, keys)
        raise DereasonError(f"{where}: {at}{field}: {cause}{more}", mend) from exc


def _real_path(loc: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """A pydantic location without the tags of discriminated unions, so that it names keys of the file."""
    path: list[int | str] = []
    here = data
    for at, part in enumerate(loc):
        if isinstance(here, list) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        elif isinstance(here, dict) and part in here:
            here = here[part]
        elif at != len(loc) - 1:
            continue  # the tag of a union
        path.append(part)
    return tuple(path)


def _explain(error: Any, model: type[BaseModel], keys: tuple[int | str, ...]) -> tuple[str, str]:
    if error["type"] == "extra_forbidden":
        known = sorted(_known_keys(model))
        if keys[-1] in known:
            return "unknown key here", "another kind of this group has it; see `dereason recipe explain`"
        close = difflib.get_close_matches(str(keys[-1]), known, 1)
        return "unknown key", f"did you mean {close[0]!r}?" if close else "see `dereason recipe explain`"
    if error["type"] == "missing":
        return "missing", "add it; `dereason recipe explain` says what it is"
    given = error.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) or given is None else ""
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}{shown}", "see `dereason recipe explain` for what it takes"


def _known_keys(model: type[BaseModel]) -> set[str]:
    return {key.rsplit(".", 1)[-1] for key, *_ in explain(model)}


def explain(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Every field of a settings model: (dotted path, type, default, description), depth first."""
    rows: list[tuple[str, str, str, str]] = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        default = "required" if field.is_required() else _short(field.get_default(call_default_factory=True))
        rows.append((path, _type_name(field.annotation), default, " ".join((field.description or "").split())))
        if name not in NESTED_POLICIES:
            for label, inner in inner_models(field.annotation):
                rows += explain(inner, f"{path}<{label}>." if label else f"{path}.")
    return rows


NESTED_POLICIES = ("like", "of", "rule")  # hold any policy again: explaining them would never end


def inner_models(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """Settings models inside an annotation, with the tag that selects each where there are several."""
    found: list[type[BaseModel]] = []

    def walk(a: Any) -> None:
        if isinstance(a, type) and issubclass(a, BaseModel):
            found.append(a)
        for arg in getattr(a, "__args__", ()):
            walk(arg)

    walk(annotation)
    tags = []
    for f in found:
        literal = next(
            (
                f.model_fields[k].annotation
                for k in ("policy", "kind", "source", "style", "name")
                if k in f.model_fields
            ),
            None,
        )
        tags.append(str(getattr(literal, "__args__", ("",))[0]) if len(found) > 1 else "")
    return list(zip(tags, found, strict=True))


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    args = getattr(annotation, "__args__", None)
    if args and str(annotation).startswith("typing.Literal"):
        return " | ".join(map(str, args))
    for noise in ("typing.", "dereason.", "Annotated"):
        text = text.replace(noise, "")
    return text if len(text) < 60 else "mapping or list"


def _short(value: Any) -> str:
    if isinstance(value, BaseModel):
        return ""
    value = TypeAdapter(Any).dump_python(value, mode="json")
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) < 50 else text[:47] + "..."
