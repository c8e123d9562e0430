"""`cac key lookup`: whole keys and their first digits."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring
from flows.key_lookup import lookup_key, whole_key
from tests.builders.ct_series import write_ct_series


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in (1, 2):
        header = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
        write_ct_series(tmp_path / str(number), series=number, n_slices=3, header=header)
    return tmp_path


def test_prefixes(archive: Path, linkage_key: str) -> None:
    keyring = Keyring(linkage_key.encode())
    study = keyring.study_key("1.2.1")
    whole = lookup_key(study, [str(archive)], None)
    assert len(whole.files) == 3
    assert lookup_key(study[:8], [str(archive)], None) == whole
    assert whole.key == study, "the whole key is shown"
    path = keyring.path_key(whole.files[0])
    assert lookup_key(path[:10], [str(archive)], None).files == [whole.files[0]]


def test_unknown_and_malformed_keys(archive: Path) -> None:
    with pytest.raises(CacError, match="No file of this archive"):
        lookup_key("0" * 32, [str(archive)], None)
    for wrong in ("12", "ABCD1", "xyz12"):
        with pytest.raises(UsageError, match="32 lower-case"):
            lookup_key(wrong, [str(archive)], None)


def test_an_ambiguous_prefix_says_of_how_many_keys() -> None:
    columns = {
        "study_key": ["abcd1" + "0" * 27, "abcd1" + "0" * 27, "ffff" + "0" * 28],
        "patient_key": ["abcd2" + "0" * 27, None, None],
        "path_key": ["1" * 32, "2" * 32, "abcd3" + "0" * 27],
    }
    table = pa.table(columns)
    with pytest.raises(UsageError, match="3 keys of this archive begin with these 4 digits"):
        whole_key(table, "abcd")
    assert whole_key(table, "abcd2") == "abcd2" + "0" * 27
