"""`cac key lookup`: the files of an archive behind a key."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.dicom.index import index_archive
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring, load_keyring
from cac_core.settings import Settings
from cac_core.sources.place import is_pacs
from cac_core.storage import place_of
from flows.request import (
    archive_listing,
    archive_roots,
    index_workers,
    open_warehouse,
    read_settings,
    site_keyring,
)
from flows.summaries import KeyLookup

_KEY = r"[0-9a-f]{4,32}"
_COLUMNS = ("study_key", "patient_key", "path_key")


def lookup_key(
    key: str, archive: Sequence[str], config: str | None, warehouse: str | None = None
) -> KeyLookup:
    """Find the files with a patient, study or file key; needs the linkage secret.

    The first digits of a key are enough if no other key of the archive begins with them.

    Parameters
    ----------
    warehouse : whose tables have the key; by default that of the settings, if they name one.

    Raises
    ------
    UsageError
        If the key is malformed, several keys begin with its digits, or the warehouse was made with
        another secret.
    CacError
        If no file of the archive has the key.
    """
    if not re.fullmatch(_KEY, key):
        raise UsageError(
            "The first argument is not a key.",
            "A key has 32 lower-case hexadecimal digits, as in the tables; give all of them, or "
            "the first four or more.",
        )
    settings = read_settings(config)
    roots = archive_roots(tuple(archive), settings)
    keyring = (
        site_keyring(settings, open_warehouse(warehouse, settings))
        if warehouse or settings.warehouse
        else load_keyring(settings.key_file)
    )
    folders = [root for root in roots if not is_pacs(root)]
    pacs = _known_places([str(root) for root in roots if is_pacs(root)], key, settings, keyring)
    if pacs:
        return KeyLookup(key, pacs)
    found = index_archive(
        folders, keyring, workers=index_workers(settings), scan=archive_listing(settings)
    )
    table = found.instances
    key = whole_key(table, key)
    matches = pc.is_in(table[_COLUMNS[0]], pa.array([key]))
    for name in _COLUMNS[1:]:
        matches = pc.or_(matches, pc.is_in(table[name], pa.array([key])))
    keys = table.filter(matches)["path_key"].to_pylist()
    return KeyLookup(key, sorted(place_of(found.paths[path_key]) for path_key in keys))


def _known_places(
    places: Sequence[str], digits: str, settings: Settings, keyring: Keyring
) -> list[str]:
    """Studies of PACS whose study key begins with these digits, as known from earlier runs."""
    if not places:
        return []
    from cac_core.sources.known import KnownStudies, known_file

    known = KnownStudies(known_file(settings.source.folder))
    return sorted(
        f"{place}/studies/{uid}"
        for place in map(lambda place: place.rstrip("/"), places)
        for uid in known.read(place)
        if keyring.study_key(uid).startswith(digits)
    )


def whole_key(table: pa.Table, digits: str) -> str:
    """The one key of an index (table `instances`) that begins with these digits.

    Raises
    ------
    UsageError
        If several keys do.
    CacError
        If none does.
    """
    known: set[str] = {
        key
        for name in _COLUMNS
        for key in table[name].unique().to_pylist()
        if key is not None and key.startswith(digits)
    }
    if not known:
        raise CacError(
            "No file of this archive has that key.",
            "The key comes from another archive, or was made with another secret.",
        )
    if len(known) > 1:
        raise UsageError(
            f"{len(known)} keys of this archive begin with these {len(digits)} digits.",
            "Give more digits.",
        )
    return known.pop()
