"""`cac review --export-training`: what was read, as a training set that `cac train` takes as it is.

The folder holds `table.csv`, `labels.toml`, the masks, and for each study a folder with links to
its slices in the archive (copies, for an archive in a store). Study and patient are named by keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cac_core.cohort.forgotten import Forgotten
from cac_core.dicom.reading_masks import HEART_LABEL
from cac_core.errors import CacError, TrainingDataError, UsageError
from cac_core.reading.readings import Readings, read_masks
from cac_core.scoring.sites import CORONARY_SITES
from cac_core.storage import archive_file, is_url
from cac_core.study import StudyWork
from cac_core.training.table import split_table, write_training_table
from flows.reading.desk import Desk
from schemas.codes import CalciumSite
from schemas.training import TRAINING_SET

#: Of patients that are too few for a split by category, every so many goes into validation.
_EVERY = 5


@dataclass(frozen=True)
class TrainingExport:
    """A written training set (`cac review --export-training`).

    Parameters
    ----------
    studies : studies with a reading that stands for them.
    waiting : studies that wait for an adjudication, and are left out.
    left_out : studies that the archive no longer holds.
    parts : studies by part of the split.
    split : how it was made.
    """

    out: str
    table: str
    labels: str
    studies: int
    waiting: int
    left_out: int
    parts: dict[str, int]
    split: str

    def lines(self) -> list[str]:
        """What is shown on a terminal."""
        parts = ", ".join(f"{name} {n}" for name, n in self.parts.items())
        train = f"cac train heart {self.table} --mapping {self.labels} --out runs/heart"
        return [
            f"{self.studies} studies in {self.out}: {parts} ({self.split})",
            f"{self.waiting} wait for adjudication, {self.left_out} are not in the archive",
            f"Train with: {train}",
        ]


def export_training(
    desk: Desk, readings: Readings, out: Path, work: Callable[[str], StudyWork]
) -> TrainingExport:
    """Write the settled readings of a warehouse as a training set into a new folder.

    Parameters
    ----------
    work : gives the `StudyWork` of a study key, or raises `CacError`.

    Raises
    ------
    UsageError
        If the folder holds something, or nothing was read.
    CacError
        If masks are missing, or a file cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"The folder {out} is not empty.", "Name a new one.")
    forgotten = Forgotten.read(desk.store, desk.keyring)
    final = {key: row for key, row in readings.final().items() if not forgotten.holds(key)}
    if not final:
        raise UsageError("No reading stands for a study yet.", "Sign readings: `cac review`.")
    try:
        rows = _written(desk, final, out, work)
        table, how = _split(TRAINING_SET.from_rows(rows), _calcified(final))
        write_training_table(out / "table.csv", table)
        (out / "labels.toml").write_text(labels_toml(), encoding="utf-8")
    except OSError as error:
        raise CacError(
            f"The training set cannot be written to {out} ({error.strerror}).",
            "Free space and permissions there, or name another folder.",
        ) from None
    parts = table["split"].to_pylist()
    return TrainingExport(
        str(out),
        str(out / "table.csv"),
        str(out / "labels.toml"),
        len(rows),
        sum(one.final is None for one in readings.studies.values()),
        len(final) - len(rows),
        {part: parts.count(part) for part in sorted(set(parts))},
        how,
    )


def _written(
    desk: Desk, final: Mapping[str, dict[str, Any]], out: Path, work: Callable[[str], StudyWork]
) -> list[dict[str, object]]:
    """Masks and slices of each reading whose study the archive holds, and its row of the table."""
    (out / "annotations").mkdir(parents=True)
    rows = []
    for key, row in sorted(final.items()):
        try:
            found = work(key)
        except CacError:
            continue
        _place_slices(found, out / "studies" / key)
        name = f"annotations/{row['reading_id']}.dcm"
        (out / name).write_bytes(read_masks(desk.store, row))
        rows.append(_row(key, row, name))
    if not rows:
        raise CacError("The archive holds none of the studies that were read.")
    return rows


def labels_toml() -> str:
    """The label mapping of the masks, for `--mapping` of `cac train`."""
    lines = [f'heart = ["{HEART_LABEL}"]']
    for group, members in (
        ("coronary", CORONARY_SITES),
        ("noncoronary", [site for site in CalciumSite if site not in CORONARY_SITES]),
    ):
        lines += ["", f"[{group}]", *(f'{site} = ["{site}"]' for site in members)]
    return "\n".join(lines) + "\n"


def _row(key: str, row: dict[str, Any], annotation: str) -> dict[str, object]:
    return {
        "study": f"studies/{key}",
        "annotation": annotation,
        "reader": "reviewed",
        "patient": row["patient_key"] or key,
        "site": None,
        "cac_category": row["cac_category"],
        "split": None,
    }


def _place_slices(work: StudyWork, folder: Path) -> None:
    """Links to the files of a study, under numbers; of copies of an instance, one."""
    folder.mkdir(parents=True)
    seen: set[int] = set()
    for number, stamp in enumerate(work.files, start=1):
        if stamp.copy_of is not None and stamp.copy_of in seen:
            continue
        if stamp.copy_of is not None:
            seen.add(stamp.copy_of)
        place = folder / f"{number:04d}.dcm"
        if is_url(stamp.path):
            place.write_bytes(archive_file(stamp.path, stamp.size_bytes).read_bytes())
        else:
            place.symlink_to(Path(stamp.path).absolute())


def _calcified(final: Mapping[str, dict[str, Any]]) -> dict[str, tuple[bool, float]]:
    """Of each patient: whether calcium of both classes was read, and the score."""
    found: dict[str, tuple[bool, float]] = {}
    for key, row in final.items():
        score, other = row["agatston"], row["agatston_noncoronary"]
        patient = row["patient_key"] or key
        found[patient] = max(found.get(patient, (False, 0.0)), (min(score, other) > 0, score))
    return found


def _split(table: pa.Table, calcified: Mapping[str, tuple[bool, float]]) -> tuple[pa.Table, str]:
    """The split of `cac train split`; of few studies, every fifth patient for validation.

    Each part needs calcium of both classes, so patients are taken in the order of it.
    """
    try:
        return split_table(table, seed=0), "a tenth each for validation and internal test"
    except TrainingDataError:
        rows: Sequence[dict[str, Any]] = table.to_pylist()
        patients = sorted(
            {row["patient"] for row in rows}, key=lambda patient: (calcified[patient], patient)
        )[::-1]
        held = set(patients[::_EVERY]) if len(patients) > 1 else set()
        parts = [row | {"split": "validation" if row["patient"] in held else "training"}
                 for row in rows]  # fmt: skip
        return TRAINING_SET.from_rows(parts), "too few for each category: every fifth patient"
