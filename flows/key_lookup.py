"""`cac key lookup`: the files of an archive behind a key."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow.compute as pc

from cac_core.cohort.fingerprint import require_same_secret
from cac_core.dicom.index import index_archive
from cac_core.errors import CacError, UsageError
from cac_core.keys import load_keyring
from flows.request import archive_roots, index_workers, open_warehouse, read_settings
from flows.summaries import KeyLookup


def lookup_key(
    key: str, archive: Sequence[str], config: str | None, warehouse: str | None = None
) -> KeyLookup:
    """Find the files with a patient, study or file key; needs the linkage secret.

    Parameters
    ----------
    warehouse : whose tables have the key; by default that of the settings, if they name one.

    Raises
    ------
    UsageError
        If the key is malformed, or the warehouse was made with another secret.
    CacError
        If no file of the archive has the key.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", key):
        raise UsageError(
            "The first argument is not a key.",
            "A key has 32 lower-case hexadecimal digits, as in the tables.",
        )
    settings = read_settings(config)
    roots = archive_roots(tuple(archive), settings)
    keyring = load_keyring(settings.key_file)
    if warehouse or settings.warehouse:
        require_same_secret(open_warehouse(warehouse, settings), keyring)
    found = index_archive(roots, keyring, workers=index_workers(settings))
    table = found.instances
    matches = pc.or_kleene(
        pc.or_kleene(pc.equal(table["study_key"], key), pc.equal(table["patient_key"], key)),
        pc.equal(table["path_key"], key),
    )
    keys = table.filter(pc.fill_null(matches, False))["path_key"].to_pylist()
    if not keys:
        raise CacError(
            "No file of this archive has that key.",
            "The key comes from another archive, or was made with another secret.",
        )
    return KeyLookup(key, sorted(str(found.paths[path_key]) for path_key in keys))
