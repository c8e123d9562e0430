"""The secret of a warehouse: it keeps a fingerprint, so that keys of two secrets never mix.

Keys of two secrets cannot be compared: scored again under another secret, every study would have a
second row, and no patient of a registry would match.
"""

from __future__ import annotations

import pyarrow as pa

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.keys import SECRET_VARIABLE, Keyring
from schemas.instance import INSTANCES
from schemas.score import SCORES

_WHAT_TO_DO = (
    f"Give that secret ({SECRET_VARIABLE}, or key_file in cac.toml). A new secret needs a new "
    "warehouse: name another folder with --warehouse and score the archive into it."
)
#: Columns with keys, by table.
_KEYS = ((INSTANCES, ("path_key", "study_key", "patient_key")), (SCORES, ("study_key",)))


def same_secret(store: Warehouse, keyring: Keyring) -> bool | None:
    """Whether a warehouse was made with this secret; None if it keeps no fingerprint.

    Without tables, a fingerprint does not count: a run that was killed before its first table left
    it.

    Raises
    ------
    CacError
        If the file of the fingerprint cannot be read.
    """
    kept = store.fingerprint()
    if kept is None or not store.exists():
        return None
    return kept == keyring.fingerprint


def require_same_secret(store: Warehouse, keyring: Keyring) -> None:
    """Refuse another secret than that of the warehouse; writes nothing.

    Raises
    ------
    UsageError
        If the warehouse keeps the fingerprint of another secret.
    CacError
        If the file of the fingerprint cannot be read.
    """
    if same_secret(store, keyring) is False:
        raise UsageError(
            f"The linkage secret is not the one that the warehouse {store.url} was made with.",
            _WHAT_TO_DO,
        )


def require_known_keys(store: Warehouse, keyring: Keyring, instances: pa.Table) -> None:
    """Check the secret with an index of the archive if the warehouse keeps no fingerprint.

    Parameters
    ----------
    instances : the archive as indexed with this secret. With the right secret at least one file,
        study or patient of it has a key that the warehouse knows.

    Raises
    ------
    UsageError
        If the warehouse holds keys, and none of the archive is among them.
    """
    if same_secret(store, keyring) is not None:
        return
    known: dict[str, set[str]] = {}
    for table, names in _KEYS:
        rows = store.columns(table, names)
        for name in names:
            known.setdefault(name, set()).update(rows[name].drop_null().to_pylist())
    if not any(known.values()):
        return
    for name, keys in known.items():
        if not keys.isdisjoint(instances[name].to_pylist()):
            return
    raise UsageError(
        f"No file, study or patient of the archive is known in the warehouse {store.url}, whose "
        "version kept no fingerprint of its secret: the secret may be another one.",
        _WHAT_TO_DO + " If the secret is right, index the archive that the warehouse was made from "
        "once (`cac index`), which writes the fingerprint.",
    )


def keep_fingerprint(store: Warehouse, keyring: Keyring) -> None:
    """Write the fingerprint if the warehouse keeps none; the caller holds the lock.

    Raises
    ------
    UsageError
        If another run has made the warehouse with another secret meanwhile.
    CacError
        If the file cannot be read or written.
    """
    require_same_secret(store, keyring)
    if store.fingerprint() != keyring.fingerprint:
        store.write_fingerprint(keyring.fingerprint)
