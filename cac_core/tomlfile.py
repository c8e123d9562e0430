"""TOML files that people write: they fit a model, or one line says what does not."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cac_core.errors import UsageError


def read_toml(path: Path | Traversable, what: str, without: str) -> dict[str, Any]:
    """The values of a TOML file.

    Parameters
    ----------
    what : what the file is, for the message: `The plan`, `The settings file`.
    without : what to do where there is no such file.

    Raises
    ------
    UsageError
        If it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read ({error.strerror}).", without) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} {path} is not valid TOML ({error}).", "Mend that line.") from None


def faults_of(error: ValidationError) -> str:
    """Every key that does not fit and why, in one line; never a value of the file."""
    texts = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(str(part) for part in fault["loc"]) or "the file"
        unknown = fault["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        reason = fault["msg"].removeprefix("Value error, ")
        texts.append(f"unknown key `{key}`" if unknown else f"`{key}`: {reason}")
    return "; ".join(texts)
