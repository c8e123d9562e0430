"""The text of a settings file: every key with its comment, set or commented out."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from cac_core.settings import Settings

_WIDTH = 96
_HEAD = """\
# Settings of cac. A line without `#` in front sets a key; the others show the default, or an
# example where there is none. Command-line options override this file. Relative paths refer to the
# folder of this file. `cac doctor --config FILE` checks it, `--settings` shows what it sets."""


def settings_text(given: Mapping[str, Any]) -> str:
    """A settings file with every key of `Settings`, its comment and its default.

    Parameters
    ----------
    given : values to set, as `Settings` takes them: keys, and tables of keys for the sections.

    Returns
    -------
    TOML that `load_settings` reads.
    """
    keys, sections = [_HEAD, ""], []
    for name, field in Settings.model_fields.items():
        content = field.get_default(call_default_factory=True)
        if isinstance(content, BaseModel) or dataclasses.is_dataclass(content):
            set_here = given.get(name, {})
            sections += ["", *_comment(field.description or ""), f"[{name}]"]
            for key, description, default, example in _keys_of(content):
                sections += _lines(key, description, default, example, set_here)
        else:
            example = (field.examples or [None])[0]
            keys += _lines(name, field.description or "", content, example, given)
    return "\n".join([*keys, *sections]) + "\n"


def _keys_of(section: Any) -> Iterator[tuple[str, str, Any, str | None]]:
    """Name, comment, default and example of every key of a section."""
    if isinstance(section, BaseModel):
        for name, field in type(section).model_fields.items():
            default = field.get_default(call_default_factory=True)
            yield name, field.description or "", default, (field.examples or [None])[0]
    else:
        for item in dataclasses.fields(section):
            yield item.name, item.metadata["description"], item.default, item.metadata["example"]


def _lines(
    key: str, description: str, default: Any, example: str | None, given: Mapping[str, Any]
) -> list[str]:
    if given.get(key) is not None:
        line = f"{key} = {_toml(given[key])}"
    else:
        line = f"# {key} = {_toml(default) if default is not None else example}"
    return [*_comment(description), line]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    # JSON strings are TOML strings, but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
