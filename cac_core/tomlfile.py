"""TOML files written by users: read them, and report in one line what is invalid."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError

from cac_core.errors import UsageError


def read_toml(path: Path | Traversable, what: str, without: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    what : name of the file in messages, e.g. `The settings file`.
    without : what to do if the file is missing, for the message.

    Raises
    ------
    UsageError
        If it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read ({error.strerror}).", without) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{what} {path} is not valid TOML ({error}).", "Correct that line."
        ) from None


def faults_of(error: ValidationError, model: type) -> str:
    """List every invalid key with its fault in one line; never a value of the file.

    An unknown key is followed by the key of `model`, the class that the file was read into, that
    it resembles most.
    """
    texts = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(str(part) for part in fault["loc"]) or "the file"
        reason = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            near = get_close_matches(str(fault["loc"][-1]), _keys(model, fault["loc"][:-1]), n=1)
            meant = f" (did you mean `{near[0]}`?)" if near else ""
            texts.append(f"unknown key `{key}`{meant}")
        else:
            texts.append(f"`{key}`: {reason}")
    return "; ".join(texts)


def _keys(model: Any, place: Sequence[str | int]) -> list[str]:
    """Keys of the section at `place`; none where it is no section of fixed keys."""
    for part in place:
        model = _types(model).get(str(part))
    return list(_types(model))


def _types(model: Any) -> dict[str, Any]:
    """Type of each key of a pydantic model or a dataclass."""
    if isinstance(model, type) and (is_dataclass(model) or issubclass(model, BaseModel)):
        return get_type_hints(model) if is_dataclass(model) else _fields(model)
    return {}


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}
