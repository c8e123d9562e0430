"""Output folders: replaces files that this program wrote, and never touches any others.

A list in the folder records the files that the program wrote, with their SHA-256. Only listed files
that have not been changed since are replaced or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cac_core.errors import CacError, UsageError
from cac_core.scratch import is_scratch, scratch_folder

#: Name of the list: `{"results": {kind: {relative name: [SHA-256]}}}`. While a result is being
#: installed, a file has two digests, the old and the new.
LIST = ".cac-files.json"

_ASIDE = ".writing-"
_Digests = dict[str, list[str]]
_Results = dict[str, _Digests]


def require_replaceable(out: Path, holds: str) -> None:
    """Check that a folder can take a complete result.

    It may be missing, empty, or hold an earlier result of the same kind, also with files of others.

    Parameters
    ----------
    holds : kind of result, for instance "cohort report".

    Raises
    ------
    UsageError
        If `out` holds anything else, or a file of the earlier result was edited.
    """
    _require_folder(out)
    try:
        if not out.exists() or (out.is_dir() and all(map(_is_scratch, out.iterdir()))):
            return
    except OSError as error:
        raise _unwritable(out, error) from None
    known = _listed(out)
    if holds not in known:
        other = f" ({', '.join(sorted(known))})" if known else ""
        raise UsageError(
            f"{out} exists and holds something else{other}, not a {holds} of this version.",
            "Name another folder with --out, or move this one away.",
        )
    _require_unchanged(out, known[holds], known[holds])


@contextlib.contextmanager
def results_folder(out: Path, holds: str, *, whole: bool = True) -> Iterator[Path]:
    """A temporary folder whose files are moved to `out` if the block succeeds.

    An error leaves `out` unchanged. Links and permissions of `out` are kept.

    Parameters
    ----------
    holds : kind of result.
    whole : the result replaces an earlier one of its kind: files that are not written again are
        removed. False adds files.

    Raises
    ------
    UsageError
        If a file to be written exists and is not the program's own.
    CacError
        If the folder cannot be written.
    """
    _require_folder(out)
    target = Path(os.path.realpath(out))
    made: list[Path] = []
    try:
        made = [folder for folder in (target, *target.parents) if not folder.exists()]
        target.mkdir(parents=True, exist_ok=True)
        with scratch_folder(_ASIDE, target) as aside:
            yield aside
            _install(aside, target, holds, whole)
        made = []
    except OSError as error:
        raise _unwritable(out, error) from None
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _require_folder(out: Path) -> None:
    """Refuse a URL: as a path it would become folders with its name."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]", str(out)):
        raise UsageError(
            f"{out} is a URL.", "Name a folder of this machine; only the warehouse can be at a URL."
        )


def require_new(path: Path) -> None:
    """Check that a path does not exist.

    Raises
    ------
    UsageError
        If it exists.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already.", "Choose another name, or move it away.")


def results_in(folder: Path) -> dict[str, list[Path]]:
    """Files that the program wrote into a folder, by kind of result; empty if there is no list."""
    return {
        holds: [folder / name for name in sorted(files)] for holds, files in _listed(folder).items()
    }


def withdraw_results(folder: Path, holds: str, note: Mapping[str, bytes]) -> int:
    """Remove the files of a result that are unchanged, and put a note in their place.

    Returns
    -------
    The number of files removed. Files that somebody changed stay.

    Raises
    ------
    CacError
        If the folder cannot be written.
    """
    try:
        old = _listed(folder).get(holds, {})
        own = [name for name in old if _is_own(folder, name, old[name])]
        for name in own:
            _remove(folder, name)
        with results_folder(folder, holds) as aside:
            write_files({name: text for name, text in note.items() if name in own}, aside)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return len(own)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files under names relative to a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _install(aside: Path, target: Path, holds: str, whole: bool) -> None:
    """Move the files of `aside` into `target`; the list is valid at every moment."""
    new = {
        path.relative_to(aside).as_posix(): [_digest(path)]
        for path in sorted(aside.rglob("*"))
        if path.is_file()
    }
    results = _listed(target)
    old = results.get(holds, {})
    known = {name: digests for files in results.values() for name, digests in files.items()}
    _require_unchanged(target, known, new)
    both = {name: [*known.get(name, ()), *new.get(name, ())] for name in old | new}
    others = {
        kind: {name: digests for name, digests in files.items() if name not in new}
        for kind, files in results.items()
        if kind != holds
    }
    _write_list(target, others | {holds: both})
    for name in new:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (aside / name).replace(place)
    for name in old.keys() - new.keys() if whole else ():
        if _is_own(target, name, old[name]):
            _remove(target, name)
    _write_list(target, others | {holds: new if whole else old | new})


def _require_unchanged(folder: Path, known: _Digests, names: Iterable[str]) -> None:
    """Check that existing files are as the program wrote them."""
    for name in names:
        place = folder / name
        if _is_linked(folder, name):
            raise UsageError(
                f"{place.parent} is reached through a link.",
                "The program writes only into folders that it created: remove the link, or name "
                "another folder with --out.",
            )
        if not os.path.lexists(place):
            continue
        if name not in known:
            raise UsageError(
                f"{place} exists and was not written by this program.",
                "Move it away, or name another folder with --out.",
            )
        if not _is_own(folder, name, known[name]):
            raise UsageError(
                f"{place} was changed after this program wrote it.",
                "Move it away to keep it, or delete it; the program then writes it again.",
            )


def _is_own(folder: Path, name: str, digests: list[str]) -> bool:
    """Whether a file is unchanged since the program wrote it."""
    place = folder / name
    if _is_linked(folder, name) or place.is_symlink() or not place.is_file():
        return False
    return _digest(place) in digests


def _is_linked(folder: Path, name: str) -> bool:
    """Whether a folder between `folder` and the file is a symbolic link."""
    return any((folder / parent).is_symlink() for parent in PurePosixPath(name).parents[:-1])


def _remove(folder: Path, name: str) -> None:
    """Remove a file, and the folders between it and `folder` that become empty."""
    place = folder / name
    place.unlink()
    for parent in place.relative_to(folder).parents[:-1]:
        with contextlib.suppress(OSError):
            (folder / parent).rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _listed(folder: Path) -> _Results:
    """Listed files of a folder by kind of result; empty if the list is missing or invalid."""
    try:
        content = json.loads((folder / LIST).read_text(encoding="utf-8"))
        results = {
            str(holds): {
                str(name): [str(one) for one in digests] for name, digests in files.items()
            }
            for holds, files in content["results"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    # An edited list must not name files outside its folder.
    names = (name for files in results.values() for name in files)
    outside = any(PurePosixPath(name).is_absolute() or ".." in name.split("/") for name in names)
    return {} if outside else results


def _write_list(folder: Path, results: _Results) -> None:
    aside = folder / f"{LIST}.{uuid.uuid4().hex}"
    text = json.dumps({"results": results}, indent=1, sort_keys=True) + "\n"
    aside.write_text(text, encoding="utf-8")
    aside.replace(folder / LIST)


def _is_scratch(path: Path) -> bool:
    """Whether a file or folder is temporary, left by the program while it writes."""
    return is_scratch(path, _ASIDE) or is_scratch(path, f"{LIST}.")


def _unwritable(out: Path, error: OSError) -> CacError:
    return CacError(
        f"The folder {out} cannot be written ({error.strerror}).",
        "Name another with --out, or free space and permissions there.",
    )
