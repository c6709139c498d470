"""The directive ``{settings} dotted.path.ofClass``: a table of a settings model's fields.

Field descriptions stand once, under each field in the code; this puts them into the pages, so that the two
cannot drift apart. Signatures in the API pages link to the table.
"""

from __future__ import annotations

import importlib
import json
import typing
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class SettingsTable(SphinxDirective):
    """See the module's docstring."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        try:
            model = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as exc:
            raise self.error(f"no settings model {self.arguments[0]}: {exc}") from exc
        lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        for field, info in model.model_fields.items():
            cells = [f"`{field}`", f"`{type_name(info.annotation)}`", default(info), info.description or ""]
            lines.append("| " + " | ".join(" ".join(c.split()).replace("|", r"\|") for c in cells) + " |")
        defined = f"{model.__module__}.{model.__qualname__}"  # as signatures name it
        target = nodes.target("", "", ids=[nodes.make_id(defined)])
        self.state.document.note_explicit_target(target)
        self.env.domains.python_domain.note_object(defined, "class", target["ids"][0], location=target)
        return [target, *self.parse_text_to_nodes("\n".join(lines))]


def type_name(annotation: Any) -> str:
    """An annotation as a reader of YAML knows it: no module paths, ``null`` for None."""
    if annotation is type(None):
        return "null"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin is typing.Literal:
        return " | ".join(json.dumps(a) for a in args)
    if origin in (list, dict, tuple):
        return f"{origin.__name__}[{', '.join('...' if a is Ellipsis else type_name(a) for a in args)}]"
    if args:
        return " | ".join(type_name(a) for a in args)
    return getattr(annotation, "__name__", str(annotation))


def default(info: FieldInfo) -> str:
    """A field's default as YAML would have it; nested models and long texts are only named."""
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, BaseModel):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        return "its defaults" + (f", but `{json.dumps(changed)}`" if changed else "")
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"`{text}`" if len(text) <= 80 else "see the source"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("settings", SettingsTable)
    return {"parallel_read_safe": True}
