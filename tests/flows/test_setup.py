"""`cac init`: the file loads to what was asked for; nothing is overwritten or half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cac_core.errors import UsageError
from cac_core.settings import load_settings
from flows.setup import InitRequest, prepare_settings, write_settings


def request(folder: Path, make_key: bool = False, **values: Any) -> InitRequest:
    return InitRequest(folder / "cac.toml", values, make_key)


def test_the_file_and_its_key(tmp_path: Path) -> None:
    key = tmp_path / "linkage.key"
    values = {"archive": ["/a b"], "warehouse": "s3://bucket/cac", "cluster": {"workers": 3}}
    done = write_settings(request(tmp_path, True, key_file=str(key), **values))
    assert (done.settings, done.key_file, done.made_key) == (
        str(tmp_path / "cac.toml"), str(key), True,
    )  # fmt: skip
    settings = load_settings(tmp_path / "cac.toml")
    assert settings.archive == (Path("/a b"),)
    assert (settings.warehouse, settings.cluster.workers) == ("s3://bucket/cac", 3)
    assert settings.key_file == key
    assert key.stat().st_mode & 0o777 == 0o600


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "cac.toml").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_settings(request(tmp_path, True, key_file=str(tmp_path / "k")))
    assert (tmp_path / "cac.toml").read_text() == "mine"
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("values", "make_key", "message"),
    [
        ({"cluster": {"workers": 0}}, False, "cluster.workers"),
        ({"cluster": {"tls_cert": "c"}}, False, "tls"),
        ({"archives": ["a"]}, False, "unknown key `archives`"),
        ({"key_file": "/nowhere/k"}, False, "--make-key"),
        ({}, True, "--key-file"),
    ],
)
def test_what_the_settings_do_not_allow_is_refused(
    tmp_path: Path, values: dict[str, Any], make_key: bool, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_settings(request(tmp_path, make_key, **values))
    assert not list(tmp_path.iterdir())


def test_a_key_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_settings(request(tmp_path, True, key_file=str(tmp_path / "none" / "k")))
    assert not list(tmp_path.iterdir())


def test_an_existing_key_file_must_be_usable(tmp_path: Path) -> None:
    key = tmp_path / "k"
    key.write_text("0123456789abcdef0123456789abcdef")
    key.chmod(0o644)
    with pytest.raises(UsageError, match="chmod"):
        prepare_settings(request(tmp_path, key_file=str(key)))
    key.chmod(0o600)
    assert f'key_file = "{key}"' in prepare_settings(request(tmp_path, key_file=str(key)))
    assert not (tmp_path / "cac.toml").exists(), "only prepared"
