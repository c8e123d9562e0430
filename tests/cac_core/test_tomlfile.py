"""TOML files of users: a fault is reported in one line, with its key and without values."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from cac_core.errors import UsageError
from cac_core.tomlfile import faults_of, read_toml


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=1, ge=1)
    name: str = ""

    @field_validator("name")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError("three letters at most")
        return value


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Point:
    height: float = 0.0


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: _Inner = _Inner()
    point: _Point = _Point()


def test_every_fault_is_named_without_values() -> None:
    with pytest.raises(ValidationError) as caught:
        _Model.model_validate({"inner": {"limit": 0, "name": "secret", "colour": 1}})
    message = faults_of(caught.value, _Model)
    assert "`inner.limit`: Input should be greater than or equal to 1" in message
    assert "`inner.name`: three letters at most" in message
    assert "unknown key `inner.colour`" in message
    assert "secret" not in message and "\n" not in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"limits": 2}}, "unknown key `inner.limits` (did you mean `limit`?)"),
        ({"iner": {}}, "unknown key `iner` (did you mean `inner`?)"),
        ({"point": {"heigth": 2}}, "unknown key `point.heigth` (did you mean `height`?)"),
        ({"colour": 1}, "unknown key `colour`"),
    ],
)
def test_an_unknown_key_is_followed_by_the_one_it_resembles(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        _Model.model_validate(values)
    assert faults_of(caught.value, _Model) == message


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"a = [", "not valid TOML"), (b"\xff\xfe", "not valid TOML")],
)
def test_files_that_are_not_toml_are_refused(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "plan.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as refused:
        read_toml(path, "The plan", "Leave it out.")
    assert str(refused.value).startswith(f"The plan {path}")
