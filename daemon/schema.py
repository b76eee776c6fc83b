"""The settings seen as a flat list: names, what is allowed, units and meaning, all read from the one schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

UNITS = {
    "e_per_dn": "e⁻/DN", "per_day": "1/day", "frames": "frames", "batches": "batches", "bytes": "bytes", "sigma": "σ",
    "mah": "mAh", "restarts": "restarts", "mb": "MB", "ma": "mA", "us": "µs", "nm": "nm", "px": "px", "dn": "DN",
    "days": "days", "h": "h", "hz": "Hz", "s": "s", "v": "V", "e": "e⁻",
}  # fmt: skip
"""The last words of a setting's name and the unit they state."""


@dataclass(frozen=True)
class Setting:
    """One setting. `name` is dotted; an item of a list is written ``[]``, as in ``api.tokens[].secret``."""

    name: str
    kind: str
    """``integer``, ``number``, ``boolean``, ``string``, ``path``, ``choice``, ``list`` or ``table``."""
    allowed: str
    """What may be written, as the end of the sentence 'it takes ...'."""
    default: Any
    required: bool
    doc: str
    secret: bool = False

    @property
    def unit(self) -> str:
        """The unit that the name states, empty without one."""
        words = self.name.rsplit(".", 1)[-1]
        return next((unit for ending, unit in UNITS.items() if words == ending or words.endswith("_" + ending)), "")


def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    """Every setting of `model` by dotted name, tables and lists included, in the order of the schema."""
    schema = model.model_json_schema()
    found = _walk(schema, schema.get("$defs", {}), "")
    return {setting.name: setting for setting in found}


def generic(place: str) -> str:
    """The name in the schema of a place in a file: ``api.tokens[0].secret`` -> ``api.tokens[].secret``."""
    return re.sub(r"\[\d+\]", "[]", place)


def dotted(location: tuple[int | str, ...]) -> str:
    """A pydantic location as a place: ``("api", "tokens", 0)`` -> ``api.tokens[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _walk(schema: dict[str, Any], defs: dict[str, Any], prefix: str) -> Iterator[Setting]:
    for key, raw in schema.get("properties", {}).items():
        node = _resolved(raw, defs)
        setting = _setting(f"{prefix}{key}", node, key in schema.get("required", ()))
        yield setting
        if setting.kind == "table":
            yield from _walk(node, defs, f"{setting.name}.")
        elif setting.kind == "list":
            yield from _walk(_resolved(node["items"], defs), defs, f"{setting.name}[].")


def _resolved(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """`node` with its reference followed and ``or null`` removed; description and default are the field's own."""
    own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "anyOf" in node:
        inner = next(option for option in node["anyOf"] if option.get("type") != "null")
        return {**_resolved(inner, defs), **own}
    if "$ref" in node:
        return {**defs[node["$ref"].rsplit("/", 1)[-1]], **own}
    return node


def _setting(name: str, node: dict[str, Any], required: bool) -> Setting:
    kind = _kind(node)
    doc = " ".join(node.get("description", "").split())
    return Setting(name, kind, _allowed(kind, node), node.get("default"), required, doc, bool(node.get("secret")))


def _kind(node: dict[str, Any]) -> str:
    if "enum" in node or "const" in node:
        return "choice"
    if node.get("format") == "path":
        return "path"
    return {"object": "table", "array": "list"}.get(node["type"], str(node["type"]))


def _allowed(kind: str, node: dict[str, Any]) -> str:
    if kind == "choice":
        return "one of " + ", ".join(f'"{value}"' for value in node.get("enum", [node.get("const")]))
    if kind == "string":
        return "a string" + _span(node, "minLength", "maxLength", " of {} characters")
    if kind == "list":
        return "a list" + _span(node, "minItems", "maxItems", " of {} items")
    if kind in ("integer", "number"):
        return f"{'an integer' if kind == 'integer' else 'a number'}{_range(node)}"
    return {"boolean": "true or false", "path": "a path", "table": "a table"}[kind]


def _range(node: dict[str, Any]) -> str:
    if "exclusiveMinimum" not in node and "exclusiveMaximum" not in node:
        return _span(node, "minimum", "maximum", " of {}")
    words = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{word} {node[bound]:g}" for bound, word in words.items() if bound in node]
    return " " + ", ".join(bounds)


def _span(node: dict[str, Any], low: str, high: str, sentence: str) -> str:
    if low in node and high in node:
        return sentence.format(f"{node[low]} to {node[high]}")
    if low in node:
        return sentence.format(f"at least {node[low]}")
    return sentence.format(f"at most {node[high]}") if high in node else ""
