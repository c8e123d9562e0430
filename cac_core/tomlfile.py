"""TOML files written by users: read them, and report in one line what is invalid."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

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


def faults_of(error: ValidationError) -> str:
    """List every invalid key with its fault in one line; never a value of the file."""
    texts = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(str(part) for part in fault["loc"]) or "the file"
        unknown = fault["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        reason = fault["msg"].removeprefix("Value error, ")
        texts.append(f"unknown key `{key}`" if unknown else f"`{key}`: {reason}")
    return "; ".join(texts)
