"""Lists the files of an archive: folders, stores, media with a DICOMDIR, zip and tar archives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cac_core.dicom.files import ScannedFile, scan_archive
from cac_core.sources.dicomdir import is_dicomdir, listed_files
from cac_core.sources.packed import UNPACK_LIMITS, UnpackLimits, with_members


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class Listing:
    """Lists files as `scan_archive` does, and also those that a DICOMDIR or an archive holds.

    Parameters
    ----------
    unpacked : private folder for the members of zip and tar archives.
    limits : what one archive may cost.
    say : called with one line for each archive that is unpacked.
    """

    unpacked: Path
    limits: UnpackLimits = UNPACK_LIMITS
    say: Callable[[str], None] = _silent

    def __call__(self, roots: Sequence[Path | str]) -> list[ScannedFile]:
        """The files below `roots`; faults of single files and archives are rows with a reason.

        Raises
        ------
        UsageError
            If a root does not exist, or is neither a readable folder nor a file.
        CacError
            If the store of a URL, or the folder of unpacked members, cannot be used.
        """
        media = [root for root in roots if isinstance(root, Path) and is_dicomdir(root)]
        files = scan_archive([root for root in roots if root not in media])
        for root in media:
            scan_archive([root])  # refuses one that cannot be read
            known = {item.path for item in files}
            files += [item for item in listed_files(str(root)) if item.path not in known]
        return with_members(files, self.unpacked, self.limits, self.say)
