"""The form of a section of the settings: frozen, each key described, no others accepted."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of the settings file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def key(default: Any, description: str, example: str | None = None, **limits: Any) -> Any:
    """A key with its comment in the settings file, and an example (TOML) if it has no default."""
    examples = None if example is None else [example]
    if callable(default):
        return Field(default_factory=default, description=description, examples=examples, **limits)
    return Field(default=default, description=description, examples=examples, **limits)
