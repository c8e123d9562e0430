"""A warehouse knows its secret: another one is refused before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from cac_core.cohort.fingerprint import (
    keep_fingerprint,
    require_known_keys,
    require_same_secret,
    same_secret,
)
from cac_core.cohort.warehouse import FINGERPRINT_FILE, Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring
from schemas.instance import INSTANCES
from schemas.score import SCORES
from tests.builders.rows import score_row

RIGHT, WRONG = Keyring(b"the secret of this site"), Keyring(b"the secret of another site")


def indexed(keys: Keyring, *paths: str, patient: str = "P") -> pa.Table:
    """One file of one study and patient per path."""
    rows = [
        {
            "path_key": keys.path_key(path),
            "size_bytes": 1,
            "mtime_ns": 1,
            "study_key": keys.study_key(path),
            "patient_key": keys.patient_key(f"{patient}{path}"),
        }
        for path in paths
    ]
    return INSTANCES.from_rows(rows)


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """A warehouse of a version that kept no fingerprint."""
    store = Warehouse(tmp_path / "wh")
    store.replace(INSTANCES, indexed(RIGHT, "1", "2"))
    return store


def test_the_first_secret_is_kept_and_no_other_is_accepted(store: Warehouse) -> None:
    assert same_secret(store, RIGHT) is None
    keep_fingerprint(store, RIGHT)
    stamp = (store.folder / FINGERPRINT_FILE).stat().st_mtime_ns
    keep_fingerprint(store, RIGHT)
    assert (store.folder / FINGERPRINT_FILE).stat().st_mtime_ns == stamp
    assert same_secret(store, RIGHT) is True and same_secret(store, WRONG) is False
    require_same_secret(store, RIGHT)
    for refuse in (require_same_secret, keep_fingerprint):
        with pytest.raises(UsageError, match=r"not the one that.*CAC_LINKAGE_KEY.*new warehouse"):
            refuse(store, WRONG)
    assert store.fingerprint() == RIGHT.fingerprint


def test_the_fingerprint_reveals_neither_secret_nor_key(store: Warehouse) -> None:
    keep_fingerprint(store, RIGHT)
    (line,) = (store.folder / FINGERPRINT_FILE).read_text().splitlines()
    assert re.fullmatch("[0-9a-f]{32}", line)
    assert line not in (RIGHT.patient_key(""), RIGHT.study_key(""), RIGHT.secret.hex()[:32])


def test_a_url_keeps_it_too() -> None:
    store = Warehouse("memory://fingerprint-test")
    assert store.fingerprint() is None
    store.replace(INSTANCES, indexed(RIGHT, "1"))
    keep_fingerprint(store, RIGHT)
    assert same_secret(Warehouse("memory://fingerprint-test"), WRONG) is False


def test_without_tables_any_secret_may_begin(tmp_path: Path) -> None:
    """A run that was killed between the fingerprint and its first table seals nothing."""
    store = Warehouse(tmp_path)
    keep_fingerprint(store, WRONG)
    require_same_secret(store, RIGHT)
    keep_fingerprint(store, RIGHT)
    store.replace(INSTANCES, indexed(RIGHT, "1"))
    assert same_secret(store, RIGHT) is True


@pytest.mark.parametrize(
    "instances",
    [
        indexed(RIGHT, "2", "3"),
        # Moved: other paths and studies, but a known patient.
        indexed(RIGHT, "mine", patient="P1")
        .drop_columns("patient_key")
        .append_column("patient_key", pa.array([RIGHT.patient_key("P1")])),
    ],
    ids=["file", "patient"],
)
def test_an_old_warehouse_accepts_the_secret_of_a_known_key(
    store: Warehouse, instances: pa.Table
) -> None:
    require_known_keys(store, RIGHT, instances)


def test_an_old_warehouse_accepts_the_secret_of_a_known_score(tmp_path: Path) -> None:
    """The index is of another archive, but a study of this one was scored before."""
    store = Warehouse(tmp_path)
    store.replace(INSTANCES, indexed(RIGHT, "other"))
    row = score_row(1) | {"study_key": RIGHT.study_key("2")}
    store.replace(SCORES, SCORES.from_rows([row]), "m")
    require_known_keys(store, RIGHT, indexed(RIGHT, "2"))


def test_an_old_warehouse_refuses_a_secret_that_fits_no_key(store: Warehouse) -> None:
    with pytest.raises(UsageError, match=r"No file, study or patient.*cac index"):
        require_known_keys(store, WRONG, indexed(WRONG, "1", "2"))
    assert store.fingerprint() is None


def test_a_kept_fingerprint_allows_another_archive(store: Warehouse) -> None:
    keep_fingerprint(store, RIGHT)
    require_known_keys(store, RIGHT, indexed(RIGHT, "8", "9"))


def test_a_new_warehouse_has_no_keys_to_compare(tmp_path: Path) -> None:
    require_known_keys(Warehouse(tmp_path), RIGHT, indexed(RIGHT, "1"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"something else\n"])
def test_a_damaged_fingerprint_stops_with_what_to_do(store: Warehouse, content: bytes) -> None:
    (store.folder / FINGERPRINT_FILE).write_bytes(content)
    with pytest.raises(CacError, match=r"no fingerprint\. Restore it.*or remove it"):
        require_same_secret(store, RIGHT)
