"""A folder of results: what the program wrote there is replaced, what anybody else put there stays.

The folder keeps a list of the files that the program wrote into it, with their SHA-256. Only files
that are on the list and have not been changed since are ever replaced or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cac_core.errors import CacError, UsageError

#: Name of the list in its folder: `{"holds": ..., "files": {relative name: [SHA-256]}}`. While a
#: result is being put in place, a file has two digests: the old one and the new one.
LIST = ".cac-files.json"

_Digests = dict[str, list[str]]


def require_replaceable(out: Path, holds: str) -> None:
    """Refuse a folder that cannot take a result as a whole.

    It may be missing, empty, or hold an earlier result of the same kind; files that others have
    added to such a folder do no harm.

    Parameters
    ----------
    holds : what the folder is for, for instance "cohort report".

    Raises
    ------
    UsageError
        If `out` holds anything else, or a file of the earlier result was changed by hand.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    known = _listed(out)
    if known is None or known[0] != holds:
        what = f"no {holds}" if known is None else f"a {known[0]}, no {holds}"
        raise UsageError(
            f"{out} is there and holds {what} that this version wrote.",
            "Name another folder with --out, or move this one away.",
        )
    _require_unchanged(out, known[1], known[1])


@contextlib.contextmanager
def results_folder(out: Path, holds: str, *, whole: bool = True) -> Iterator[Path]:
    """A folder to write a result into; what is in it goes to `out` where all went well.

    A fault before the end leaves `out` as it was. Links and permissions of `out` stay.

    Parameters
    ----------
    holds : what the folder is for.
    whole : the result is all that the program keeps there: files of an earlier one that are not
        written again are removed. False adds to whatever the folder holds.

    Raises
    ------
    UsageError
        If a file that is to be written is there and is not the program's own.
    CacError
        If the folder cannot be written.
    """
    target = out.resolve()
    made = [] if target.exists() else [target]
    aside = target / f".writing-{uuid.uuid4().hex}"
    try:
        aside.mkdir(parents=True)
        yield aside
        _install(aside, target, holds, whole)
        made = []
    except OSError as error:
        raise CacError(
            f"The folder {out} cannot be written ({error.strerror}).",
            "Name another with --out, or free space and permissions there.",
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def require_new(path: Path) -> None:
    """Refuse to write a file over one that is there.

    Raises
    ------
    UsageError
        If there is anything at `path`.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already.", "Name another, or move it away.")


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by their names relative to a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _install(aside: Path, target: Path, holds: str, whole: bool) -> None:
    """Move the files of `aside` to their places in `target`; the list is right at every moment."""
    new = {
        path.relative_to(aside).as_posix(): [_digest(path)]
        for path in sorted(aside.rglob("*"))
        if path.is_file()
    }
    _, old = _listed(target) or (holds, {})
    _require_unchanged(target, old, new)
    both = {name: [*old.get(name, ()), *new.get(name, ())] for name in old | new}
    _write_list(target, holds, both)
    for name in new:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (aside / name).replace(place)
    for name in old.keys() - new.keys() if whole else ():
        if _is_own(target, name, old[name]):
            _remove(target, name)
    _write_list(target, holds, new if whole else old | new)


def _require_unchanged(folder: Path, known: _Digests, names: Iterable[str]) -> None:
    """Refuse to replace files that the program did not write, or not as they are now."""
    for name in names:
        place = folder / name
        if not os.path.lexists(place):
            continue
        if name not in known:
            raise UsageError(
                f"{place} is there and was not written by this program.",
                "Move it away, or name another folder with --out.",
            )
        if not _is_own(folder, name, known[name]):
            raise UsageError(
                f"{place} was changed after this program wrote it.",
                "Move it away to keep it, or delete it; the program writes it again.",
            )


def _is_own(folder: Path, name: str, digests: list[str]) -> bool:
    """Whether a file is still what the program wrote."""
    place = folder / name
    return place.is_file() and not place.is_symlink() and _digest(place) in digests


def _remove(folder: Path, name: str) -> None:
    """Remove a file, and the folders between it and `folder` that are empty without it."""
    place = folder / name
    place.unlink()
    for parent in place.relative_to(folder).parents[:-1]:
        with contextlib.suppress(OSError):
            (folder / parent).rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _listed(folder: Path) -> tuple[str, _Digests] | None:
    """What the folder holds, and the program's files in it; None where there is no sound list."""
    try:
        told = json.loads((folder / LIST).read_text(encoding="utf-8"))
        holds, listed = str(told["holds"]), told["files"].items()
        files = {str(name): [str(one) for one in digests] for name, digests in listed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # A list that was edited must not reach outside its folder.
    outside = any(PurePosixPath(name).is_absolute() or ".." in name.split("/") for name in files)
    return None if outside else (holds, files)


def _write_list(folder: Path, holds: str, files: _Digests) -> None:
    aside = folder / f"{LIST}.{uuid.uuid4().hex}"
    text = json.dumps({"holds": holds, "files": files}, indent=1, sort_keys=True) + "\n"
    aside.write_text(text, encoding="utf-8")
    aside.replace(folder / LIST)
