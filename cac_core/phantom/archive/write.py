"""A synthetic SPECT/CT archive on disk, with a truth table of its studies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.errors import UsageError
from cac_core.phantom.analytic.acquisition import ScanSettings, draw_settings
from cac_core.phantom.analytic.scan import SyntheticScan, synthesise_scan
from cac_core.phantom.archive.dicom_files import StudyHeader, StudyWriter
from cac_core.phantom.archive.vendors import pick_vendor
from cac_core.phantom.truth import true_agatston, true_category
from cac_core.processes import WorkerPool
from schemas.codes import StudyReason

#: Every eighth study has a defect, in this order; each is the expected rejection reason.
PLANTED_DEFECTS: tuple[StudyReason, ...] = (
    StudyReason.MISSING_SLICES,
    StudyReason.CONTRAST_ENHANCED,
    StudyReason.TRUNCATED_PIXEL_DATA,
    StudyReason.NO_CT_SERIES,
    StudyReason.GANTRY_TILT,
)
_DEFECT_EVERY, _DEFECT_AT = 8, 5

TRUTH_SCHEMA = pa.schema(
    [
        ("study_instance_uid", pa.string()),
        ("patient_id", pa.string()),
        ("accession_number", pa.string()),
        ("study_date", pa.date32()),
        ("sex", pa.string()),
        ("birth_date", pa.date32()),
        ("planted_defect", pa.string()),
        ("target_category", pa.string()),
        ("agatston", pa.float64()),
        ("agatston_noise_free", pa.float64()),
        ("agatston_noncoronary", pa.float64()),
        ("cac_category", pa.string()),
        ("heart_volume_ml", pa.float64()),
        ("manufacturer", pa.string()),
        ("slice_increment_mm", pa.float64()),
        ("tube_current_ma", pa.float64()),
        ("kvp", pa.float64()),
        ("scan_seed", pa.int64()),
    ]
)


def scan_seed(seed: int, index: int) -> int:
    """Seed of the scan of study `index` in the archive of this seed; never a training seed."""
    return (seed * 1000 + index) % 90_000


def planted_defect(index: int) -> StudyReason | None:
    """The defect of study `index`, or None."""
    if index % _DEFECT_EVERY != _DEFECT_AT:
        return None
    return PLANTED_DEFECTS[index // _DEFECT_EVERY % len(PLANTED_DEFECTS)]


def write_archive(
    folder: Path,
    *,
    studies: int,
    seed: int,
    truth_path: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Write an archive of SPECT/CT studies; the content of a study depends on seed and number.

    Parameters
    ----------
    folder : a new or empty folder.
    truth_path : file for the truth table, outside the archive.
    workers : number of processes.
    progress : called with (finished studies, all studies).

    Returns
    -------
    The truth, one row per study in order of study number, with the raw identifiers of the invented
    patients: a test aid, not an output of the system.

    Raises
    ------
    UsageError
        If the folder is not empty or cannot be written.
    """
    _require_empty(folder)
    rows: dict[int, dict[str, object]] = {}
    for index, row in _written(folder, studies, seed, workers):
        rows[index] = row
        if progress:
            progress(len(rows), studies)
    truth = pa.Table.from_pylist([rows[index] for index in range(studies)], TRUTH_SCHEMA)
    if truth_path is not None:
        pq.write_table(truth, truth_path)
    return truth


def _require_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"The folder {folder} is not empty.", "Name a new or empty one.")
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be written ({error.strerror}).", "Name another one."
        ) from None


def _written(
    folder: Path, studies: int, seed: int, workers: int
) -> Iterator[tuple[int, dict[str, object]]]:
    """Write the studies; yields number and truth of each as it is finished."""
    if workers <= 1:
        for index in range(studies):
            yield index, write_study(folder, seed, index)
        return
    with WorkerPool(workers) as pool:
        futures = {pool.submit(write_study, folder, seed, n): n for n in range(studies)}
        for future in as_completed(futures):
            yield futures[future], future.result()


def write_study(folder: Path, seed: int, index: int) -> dict[str, object]:
    """Write one study; returns its row of the truth table."""
    rng = np.random.default_rng([seed, index])
    vendor = pick_vendor(rng)
    # Every tenth study is a second visit of the previous patient.
    patient = index - 1 if index % 10 == 9 else index
    header = StudyHeader(
        seed=seed,
        index=index,
        patient_number=seed * 1000 + patient,
        study_date=f"20{18 + index % 6}{1 + index % 12:02d}{1 + (index * 7) % 28:02d}",
        birth_date=f"19{40 + patient % 40}0{1 + patient % 9}15",
        sex="FM"[patient % 2],
    )
    defect = planted_defect(index)
    number = scan_seed(seed, index)
    settings = draw_settings(np.random.default_rng([seed, index, 1]))
    if defect is StudyReason.CONTRAST_ENHANCED:
        settings = replace(settings, blood_excess_hu=float(rng.uniform(120, 320)))
    scan = synthesise_scan(number, settings)
    writer = StudyWriter(folder / f"{header.study_date[:4]}" / f"S{index:05d}", header, vendor)
    _write_objects(writer, scan, defect, rng)
    return _truth_row(header, vendor.manufacturer, settings, scan, defect)


def _write_objects(
    writer: StudyWriter, scan: SyntheticScan, defect: StudyReason | None, rng: np.random.Generator
) -> None:
    writer.perfusion(rng)
    if defect is not StudyReason.NO_CT_SERIES:
        tilt = 14.0 if defect is StudyReason.GANTRY_TILT else 0.0
        paths = writer.ctac(scan, tilt_deg=tilt)
        if defect is StudyReason.MISSING_SLICES:
            paths[len(paths) // 2].unlink()
        if defect is StudyReason.TRUNCATED_PIXEL_DATA:
            broken = paths[len(paths) // 3]
            with broken.open("r+b") as stream:
                stream.truncate(int(broken.stat().st_size * 0.6))
        if rng.random() < 0.6:
            writer.localizer(scan)
        if rng.random() < 0.25:
            writer.lung_reconstruction(scan)
    if rng.random() < 0.5:
        writer.screen_save(rng)
    if rng.random() < 0.5:
        writer.dose_report()


def _truth_row(
    header: StudyHeader,
    manufacturer: str,
    settings: ScanSettings,
    scan: SyntheticScan,
    defect: StudyReason | None,
) -> dict[str, object]:
    coronary = (scan.calcium_class == 1) & scan.heart_mask
    noncoronary = (scan.calcium_class == 2) & scan.heart_mask
    agatston = true_agatston(scan.hu, coronary, scan.spacing_mm)
    return {
        "study_instance_uid": header.study_uid,
        "patient_id": header.patient_id,
        "accession_number": header.accession_number,
        "study_date": dt.datetime.strptime(header.study_date, "%Y%m%d").date(),
        "sex": header.sex,
        "birth_date": dt.datetime.strptime(header.birth_date, "%Y%m%d").date(),
        "planted_defect": None if defect is None else defect.value,
        "target_category": scan.target_category,
        "agatston": agatston,
        "agatston_noise_free": true_agatston(scan.hu_noise_free, coronary, scan.spacing_mm),
        "agatston_noncoronary": true_agatston(scan.hu, noncoronary, scan.spacing_mm),
        "cac_category": true_category(agatston),
        "heart_volume_ml": float(scan.heart_mask.sum() * np.prod(scan.spacing_mm) / 1000),
        "manufacturer": manufacturer,
        "slice_increment_mm": settings.slice_increment_mm,
        "tube_current_ma": settings.tube_current_ma,
        "kvp": settings.kvp,
        "scan_seed": scan.seed,
    }
