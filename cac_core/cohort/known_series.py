"""Table `series` of an archive that did not change: taken from the warehouse, not made again.

The file of the table keeps what it was made from: a digest of the instances, the rules and the
version of the program.
"""

from __future__ import annotations

from hashlib import blake2b

import pyarrow as pa

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.version import __version__
from schemas.invalid import InvalidTableError
from schemas.series import SERIES

_ORIGIN = b"made_from"
_ROWS_AT_ONCE = 2**16


def series_origin(instances: pa.Table, rules_digest: str) -> str:
    """Digest of all that the table `series` of these instances depends on.

    Parameters
    ----------
    instances : table `instances`, ordered by `path_key`.
    rules_digest : that of the rules that select series.
    """
    digest = blake2b(f"{__version__} {SERIES.version} {rules_digest} ".encode(), digest_size=16)
    for batch in instances.to_batches(max_chunksize=_ROWS_AT_ONCE):
        digest.update(batch.serialize())
    return digest.hexdigest()


def known_series(store: Warehouse, origin: str) -> pa.Table | None:
    """Table `series` of the warehouse if it was made from this; else None."""
    try:
        found = [store.files.read_table(path) for path in store.files.table_files(SERIES)]
        if len(found) != 1 or (found[0].schema.metadata or {}).get(_ORIGIN) != origin.encode():
            return None
        return SERIES.validate(found[0])
    except (CacError, InvalidTableError):  # it will be replaced
        return None


def keep_series(store: Warehouse, series: pa.Table, origin: str) -> None:
    """Publish the table in place of the old one, with what it was made from.

    Raises
    ------
    InvalidTableError
        If the table breaks its schema; then nothing is written.
    CacError
        If the file cannot be written.
    """
    table = SERIES.validate(series)
    metadata = {**(table.schema.metadata or {}), _ORIGIN: origin.encode()}
    path = store.files.table_folder(SERIES, None) / f"{SERIES.name}.parquet"
    store.files.write_table(path, table.replace_schema_metadata(metadata))
