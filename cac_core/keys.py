"""Keyed pseudonyms: the only form in which patients, studies, series and files are stored.

HMAC-SHA-256 with the secret of the site, because an unkeyed digest of an eight-digit record number
can be inverted by trial in under a minute. Without the secret the keys cannot be linked to persons.
"""

from __future__ import annotations

import codecs
import datetime as dt
import hmac
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from cac_core.errors import UsageError

#: Environment variable that holds the secret.
SECRET_VARIABLE = "CAC_LINKAGE_KEY"
#: Fewer bytes can be guessed: with a table and a guess anybody can compute the key of a person.
MIN_SECRET_BYTES = 16
_HEX_DIGITS = 32
_SHIFT_DAYS = 182


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Derives all keys of the warehouse from one secret, which never appears in its repr."""

    secret: bytes

    def patient_key(self, patient_id: str) -> str:
        """Key of a patient: 32 hexadecimal digits from the normalised PatientID."""
        return self._digest(f"patient:{normalise_patient_id(patient_id)}")

    def study_key(self, study_instance_uid: str) -> str:
        """Key of a study: 32 hexadecimal digits from StudyInstanceUID."""
        return self._digest(f"study:{study_instance_uid}")

    def accession_key(self, accession_number: str) -> str:
        """Key of an accession number, normalised like a PatientID."""
        return self._digest(f"accession:{normalise_patient_id(accession_number)}")

    def path_key(self, path: str) -> str:
        """Key of a file path; paths often hold names and record numbers.

        Keyed BLAKE2b (RFC 7693) of 128 bits with a derived secret: all files of the archive are
        keyed every night, and an HMAC takes four times as long.
        """
        return self.path_keys([path])[0]

    def path_keys(self, paths: Iterable[str]) -> list[str]:
        """Keys of many file paths."""
        # Copying a keyed state takes two thirds of the time of a new one.
        keyed = blake2b(key=hmac.digest(self.secret, b"path", "sha256"), digest_size=16)
        keys = []
        for path in paths:
            state = keyed.copy()
            state.update(path.encode("utf-8", "surrogateescape"))
            keys.append(state.hexdigest())
        return keys

    def pseudonym_uid(self, uid: str) -> str:
        """Replacement UID `2.25.<integer>` of a series or instance (DICOM PS3.15, action U).

        The integer is the first 128 bits of the HMAC of `uid:` + UID, so that only the holder of
        the secret can link it to the original.
        """
        return f"2.25.{int(self._digest(f'uid:{uid}'), 16)}"

    def result_uid(self, *parts: str) -> str:
        """UID `2.25.<integer>` of an object made from a score: the same parts give the same UID.

        The integer is the first 128 bits of the HMAC of `result:` and the parts, so that a later
        run makes the same object and not a second one.
        """
        return f"2.25.{int(self._digest(chr(0).join(('result:', *parts))), 16)}"

    def date_shift(self, patient_key: str) -> dt.timedelta:
        """Shift of all dates of a patient, the same in linked tables and in copies of images."""
        digest = hmac.digest(self.secret, f"shift:{patient_key}".encode(), "sha256")
        number = int.from_bytes(digest[:8], "big")
        return dt.timedelta(days=number % (2 * _SHIFT_DAYS + 1) - _SHIFT_DAYS)

    def suppression_key(self, key: str) -> str:
        """Key of a withdrawn patient or study: 32 hexadecimal digits from another key."""
        return self._digest(f"forgotten:{key}")

    @property
    def fingerprint(self) -> str:
        """Shows whether two secrets are the same: 32 hexadecimal digits that do not reveal them."""
        return self._digest("fingerprint")

    def _digest(self, message: str) -> str:
        # Undecodable file names contain surrogates, which must hash and not raise.
        data = message.encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret, data, "sha256").hex()[:_HEX_DIGITS]


def normalise_patient_id(patient_id: str) -> str:
    """Normalise a PatientID for its key: NFKC, without white space, upper case."""
    return "".join(unicodedata.normalize("NFKC", patient_id).split()).upper()


def load_keyring(key_file: Path | None = None, warehouse: str | None = None) -> Keyring:
    """Read the secret from a key file or, without one, from the environment.

    Surrounding white space and a byte order mark are removed.

    Parameters
    ----------
    warehouse : the existing warehouse whose secret is wanted: a fault then asks for that secret,
        for a new one would not fit.

    Raises
    ------
    UsageError
        If there is no secret, it is shorter than `MIN_SECRET_BYTES`, its file cannot be read, or
        every user of the machine can access it.
    """
    if key_file is not None:
        try:
            found = key_file.read_bytes()
        except OSError as error:
            raise UsageError(
                f"The key file {key_file} cannot be read ({error.strerror}).",
                "Check the path; for a new warehouse: umask 077; openssl rand -hex 32 > FILE"
                if warehouse is None
                else _give_that_of(warehouse),
            ) from None
        _require_private(key_file)
        source = f"the key file {key_file}"
    else:
        found = os.environ.get(SECRET_VARIABLE, "").encode("utf-8", "surrogateescape")
        source = f"the environment variable {SECRET_VARIABLE}"
    secret = _trimmed(found)
    hint = _how_to_make(key_file) if warehouse is None else _give_that_of(warehouse)
    if not secret:
        raise UsageError(f"No linkage secret: {source} is not set or empty.", hint)
    if len(secret) < MIN_SECRET_BYTES:
        raise UsageError(
            f"The linkage secret can be guessed: {source} holds {len(secret)} bytes, and at least "
            f"{MIN_SECRET_BYTES} are needed.",
            hint,
        )
    return Keyring(secret)


def ignored_secret(key_file: Path | None) -> str | None:
    """A note that the environment has another secret than the key file, which is used.

    Parameters
    ----------
    key_file : a readable key file, or none.

    Returns
    -------
    None if only one secret is given, or both are the same.
    """
    given = _trimmed(os.environ.get(SECRET_VARIABLE, "").encode("utf-8", "surrogateescape"))
    if key_file is None or not given or given == _trimmed(key_file.read_bytes()):
        return None
    return (
        f"two different secrets are given: that of `key_file` in the settings is used, and "
        f"{SECRET_VARIABLE} is ignored"
    )


def _trimmed(secret: bytes) -> bytes:
    # Editors and shells add a byte order mark or a line end.
    return secret.removeprefix(codecs.BOM_UTF8).strip()


def _give_that_of(warehouse: str) -> str:
    return (
        f"Give the secret that the warehouse {warehouse} was made with: in {SECRET_VARIABLE}, or "
        "as `key_file` in cac.toml, named with --config. A new one would not fit."
    )


def _how_to_make(key_file: Path | None) -> str:
    if key_file is not None:
        command = "umask 077; openssl rand -hex 32 > FILE"
    else:
        command = f'export {SECRET_VARIABLE}="$(openssl rand -hex 32)"'
    return f"Make one, keep it safe and use the same each night: {command}"


def make_key_file(path: Path) -> None:
    """Write a new secret of 32 random bytes, as hexadecimal digits, for its owner only (0600).

    Raises
    ------
    UsageError
        If the file exists or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        raise UsageError(
            f"The key file {path} exists already.",
            "It is never replaced: keys made with it could not be made again. Name another file.",
        ) from None
    except OSError as error:
        raise UsageError(
            f"The key file {path} cannot be written ({error.strerror}).", "Name another folder."
        ) from None


def _require_private(key_file: Path) -> None:
    """Refuse a key file that users outside its owner and group can read or write."""
    mode = key_file.stat().st_mode
    if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UsageError(
            f"Every user of this machine can access the key file {key_file}.",
            f"Restrict it with: chmod o-rwx {key_file}",
        )
