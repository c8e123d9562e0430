"""Keys against the definition, computed here with the standard library alone."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from cac_core.errors import UsageError
from cac_core.keys import (
    Keyring,
    ignored_secret,
    load_keyring,
    make_key_file,
    normalise_patient_id,
)

KEYRING = Keyring(b"secret")
#: As short as a secret may be.
SECRET = "sixteen bytes ok"


def reference(message: str) -> str:
    return hmac.new(b"secret", message.encode(), hashlib.sha256).hexdigest()[:32]


def test_definition() -> None:
    assert KEYRING.patient_key("ab 12") == reference("patient:AB12")
    assert KEYRING.study_key("1.2.840.1") == reference("study:1.2.840.1")
    derived = hmac.new(b"secret", b"path", hashlib.sha256).digest()
    expected = hashlib.blake2b(b"/a/B", key=derived, digest_size=16).hexdigest()
    assert KEYRING.path_key("/a/B") == expected


def test_value_of_another_implementation() -> None:
    # echo -n "patient:12345678" | openssl dgst -sha256 -hmac secret
    assert KEYRING.patient_key("12345678") == "8655ab5a545e46e0b96b2d69bf83fd45"


@pytest.mark.parametrize(
    "spelling", ["AB12", "ab12", " a b 1 2 ", "\uff21\uff2212", "ab\u00a012", "AB\t12\n"]
)
def test_spellings_of_one_patient(spelling: str) -> None:
    assert KEYRING.patient_key(spelling) == KEYRING.patient_key("AB12")
    assert normalise_patient_id(spelling) == "AB12"


def test_kinds_do_not_collide() -> None:
    assert len({KEYRING.patient_key("1"), KEYRING.study_key("1"), KEYRING.path_key("1")}) == 3


def test_pseudonym_is_a_valid_uid() -> None:
    uid = KEYRING.pseudonym_uid("1.2.3")
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert int(uid[5:]) == int(reference("uid:1.2.3"), 16)


def test_undecodable_names_hash() -> None:
    assert len(KEYRING.path_key("/archive/\udcff")) == 32


def test_the_secret_is_not_printed() -> None:
    assert "secret" not in repr(KEYRING)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAC_LINKAGE_KEY", "ein Schlüssel mit Umlaut")
    assert load_keyring() == Keyring("ein Schlüssel mit Umlaut".encode())


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    assert load_keyring(file) == Keyring(SECRET.encode())


@pytest.mark.parametrize("value", ["{}\r", "{}\r\n", " {}\t", "\ufeff{}", "\ufeff {}\n"])
def test_white_space_and_byte_order_mark_are_not_part_of_the_secret(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = value.format(SECRET)
    monkeypatch.setenv("CAC_LINKAGE_KEY", value)
    file = tmp_path / "key"
    file.write_bytes(value.encode())
    file.chmod(0o600)
    assert load_keyring() == load_keyring(file) == Keyring(SECRET.encode())


@pytest.mark.parametrize("value", ["", " \r\n", "\ufeff", None])
def test_no_secret(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("CAC_LINKAGE_KEY")
    if value is not None:
        monkeypatch.setenv("CAC_LINKAGE_KEY", value)
    with pytest.raises(UsageError, match="openssl rand"):
        load_keyring()


def test_for_an_existing_warehouse_its_secret_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new secret would fit none of its keys."""
    (tmp_path / "empty").touch(mode=0o600)
    monkeypatch.delenv("CAC_LINKAGE_KEY")
    for file in (None, tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(UsageError, match="that the warehouse /data/cac was made w") as raised:
            load_keyring(file, "/data/cac")
        assert "openssl" not in str(raised.value) and "--config" in raised.value.hint


def test_a_second_secret_is_said_to_be_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET + "\n", encoding="utf-8")
    file.chmod(0o600)
    monkeypatch.setenv("CAC_LINKAGE_KEY", SECRET + "\r\n")
    assert ignored_secret(file) is None
    monkeypatch.setenv("CAC_LINKAGE_KEY", "another secret than in the file")
    assert "CAC_LINKAGE_KEY is ignored" in str(ignored_secret(file))
    assert load_keyring(file) == Keyring(SECRET.encode())
    assert ignored_secret(None) is None
    monkeypatch.delenv("CAC_LINKAGE_KEY")
    assert ignored_secret(file) is None


@pytest.mark.parametrize("value", ["short", f"\ufeff {SECRET[1:]} \r\n", "é" * 7])
def test_a_secret_that_can_be_guessed(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White space does not count; the message shows how to make one, never the secret."""
    monkeypatch.setenv("CAC_LINKAGE_KEY", value)
    (tmp_path / "key").write_text(value, encoding="utf-8")
    (tmp_path / "key").chmod(0o600)
    for file in (None, tmp_path / "key"):
        with pytest.raises(UsageError, match=r"at least 16 .*openssl rand -hex 32") as raised:
            load_keyring(file)
        assert value.strip("\ufeff \r\n") not in str(raised.value)


def test_the_fingerprint_is_another_digest_than_any_key() -> None:
    assert KEYRING.fingerprint == reference("fingerprint")
    assert Keyring(b"secret2").fingerprint != KEYRING.fingerprint


def test_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_keyring(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o600)
    with pytest.raises(UsageError, match="empty"):
        load_keyring(tmp_path / "empty")


@pytest.mark.parametrize(
    ("mode", "accepted"),
    [
        (0o600, True),
        (0o400, True),
        (0o640, True),
        (0o644, False),
        (0o602, False),
        (0o666, False),
    ],
)
def test_a_key_file_of_everybody_is_refused(tmp_path: Path, mode: int, accepted: bool) -> None:
    path = tmp_path / "linkage.key"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    path.chmod(mode)
    if accepted:
        assert load_keyring(path).secret == b"0123456789abcdef0123456789abcdef"
        return
    with pytest.raises(UsageError, match="chmod o-rwx") as caught:
        load_keyring(path)
    assert "0123" not in str(caught.value)


def test_a_new_key_file_is_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "linkage.key"
    make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    secret = load_keyring(path).secret
    assert len(bytes.fromhex(secret.decode())) == 32
    with pytest.raises(UsageError, match="exists already"):
        make_key_file(path)
    assert load_keyring(path).secret == secret
    make_key_file(tmp_path / "other.key")
    assert load_keyring(tmp_path / "other.key").secret != secret
