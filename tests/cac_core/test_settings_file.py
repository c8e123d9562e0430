"""The settings file that `cac init` writes: every key, its comment, and what was set."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cac_core.settings import Settings, load_settings
from cac_core.settings_file import settings_text

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda t: "\0" not in t
)


def keys_of(model: object) -> dict[str, object]:
    """Keys of the settings with their defaults, dotted below a section."""
    found: dict[str, object] = {}
    for name in type(model).model_fields:  # type: ignore[attr-defined]
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            inner = {key: getattr(value, key) for key in type(value).model_fields}
        elif dataclasses.is_dataclass(value):
            inner = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        else:
            found[name] = value
            continue
        found |= {f"{name}.{key}": item for key, item in inner.items()}
    return found


def test_every_key_is_there_once_with_its_comment() -> None:
    section, before, seen = "", "", []
    for line in settings_text({}).splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
        elif match := re.fullmatch(r"# (\w+) = .+", line):
            assert re.match(r"# \S", before), f"no comment before {match[1]}"
            seen.append(section + match[1])
        before = line
    assert seen == list(keys_of(Settings()))


def test_the_commented_lines_are_the_defaults_in_toml() -> None:
    """Without their `#` they are valid, and those of keys with a default change nothing."""
    lines = settings_text({}).splitlines()
    live = [re.sub(r"^# (?=\w+ = )", "", line) for line in lines]
    values = tomllib.loads("\n".join(live))
    of_address = {name for name in values["cluster"] if name.startswith(("address", "tls_"))}
    for kind, others in (("address", {"minimum_workers"}), ("slurm", of_address)):
        cluster = {name: v for name, v in values["cluster"].items() if name not in others}
        Settings.model_validate(values | {"cluster": cluster | {"kind": kind}})
    for key, default in keys_of(Settings()).items():
        section, _, name = key.rpartition(".")
        shown = values[section][name] if section else values[name]
        if default is not None:
            as_list = list(default) if isinstance(default, tuple) else default
            assert shown == as_list, key


def test_without_values_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "cac.toml"
    path.write_text(settings_text({}), encoding="utf-8")
    assert load_settings(path) == Settings()


@given(archive=st.lists(_TEXT, min_size=1), warehouse=_TEXT, workers=st.integers(1, 512))
def test_any_text_survives(archive: list[str], warehouse: str, workers: int) -> None:
    values = {"archive": archive, "warehouse": warehouse, "cluster": {"workers": workers}}
    found = tomllib.loads(settings_text(values))
    assert {name: value for name, value in found.items() if value} == values
