"""From instances to series: one row per series, with counts, geometry and a digest.

Values come from the instances with the most frequent ImageType of the series, so that a stray
localizer does not affect them. Where instances differ, the most frequent value is used, among
equally frequent ones the lowest; the order of files or pseudonyms does not matter.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cac_core.dicom.header_geometry import COSINE_COLUMNS, POSITION_COLUMNS
from cac_core.dicom.increment import SAME_POSITION_MM
from schemas.codes import FileReason
from schemas.instance import INSTANCES
from schemas.series import SERIES

_UNUSED = ("path_key", "mtime_ns", "accession_key", "pixel_data_offset", "text_policy")
_GROUP = ["study_key", "SeriesInstanceUID"]
_VALUES = (
    *("study_date", "Modality", "SOPClassUID"),
    *("TransferSyntaxUID", "ImageType", "SeriesDescription", "StudyDescription", "ProtocolName"),
    *("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "LossyImageCompression"),
    *("SeriesNumber", "Rows", "Columns", "KVP", "SliceThickness"),
    *("row_spacing_mm", "column_spacing_mm", "ReconstructionDiameter", "axial_cosine"),
)
#: Pseudonyms: their order depends on the secret, so only an unambiguous value is used.
_PATIENT, _FRAME = "patient_key", "FrameOfReferenceUID"
_COSINES, _POSITION = list(COSINE_COLUMNS), list(POSITION_COLUMNS)


def series_table(instances: pa.Table) -> pa.Table:
    """Group `instances` into `series`, without a selection (`selected` false, no reason).

    Duplicate instances count once; truncated ones count as slices and in `n_truncated`. Files of a
    study without a usable header or UIDs count in `n_unusable`, so that a study with unusable files
    keeps a row.

    Parameters
    ----------
    instances : table `schemas.instance.INSTANCES`, rows in any order.

    Returns
    -------
    Table `schemas.series.SERIES`, ordered by study and series.
    """
    wanted = [n for n in INSTANCES.arrow_schema.names if n not in _UNUSED]
    frame = instances.select(wanted).to_pandas()
    frame = frame[frame["study_key"].notna()]
    if frame.empty:
        return SERIES.empty()
    # Grouping drops null keys; an empty text groups and sorts.
    frame["SeriesInstanceUID"] = frame["SeriesInstanceUID"].fillna("")
    order = [*_GROUP, "SOPInstanceUID", "size_bytes"]
    frame = frame.sort_values(order, ignore_index=True, kind="stable")
    member = member_rows(frame)
    frame["series"] = frame.groupby(_GROUP, sort=True).ngroup()
    normals = _normals(frame)
    frame["axial_cosine"] = np.clip(np.abs(normals[:, 2]), 0.0, 1.0)
    members = frame[member]
    table = _header_values(frame, members)
    table = table.join(_counts(frame, members)).join(_spacing(members, normals[member]))
    table["instances_digest"] = _digests(frame)
    table["layout_digest"] = _layouts(members)
    table["SeriesInstanceUID"] = table["SeriesInstanceUID"].replace("", None)
    table = table.rename(columns={"ReconstructionDiameter": "reconstruction_diameter_mm"})
    table = table.assign(selected=False, reason=None, rank_score=None, ctac_role=None, evidence="")
    return _to_arrow(table)


def member_rows(frame: pd.DataFrame) -> pd.Series[bool]:
    """Mark the rows that are slices of a series: complete and truncated instances.

    A truncated file is skipped where a complete copy of the same instance exists; where files with
    one SOPInstanceUID have several positions, a complete copy at the same position.
    """
    whole = frame["reason"].isna()
    truncated = frame["reason"] == FileReason.TRUNCATED.value
    named = frame["SeriesInstanceUID"].fillna("").ne("")
    if not truncated.any():
        return whole & named
    names = [*_GROUP, "SOPInstanceUID"]
    copies = frame.loc[whole | truncated, [*names, *_POSITION]].assign(whole=whole)
    copies["place"] = copies.groupby(_POSITION, dropna=False).ngroup()
    has_whole = copies.groupby(names, dropna=False)["whole"].transform("any")
    whole_at = copies["place"].where(copies["whole"])
    several = whole_at.groupby([copies[name] for name in names]).transform("nunique") > 1
    at_place = copies.groupby([*names, "place"], dropna=False)["whole"].transform("any")
    has_whole = has_whole.where(~several, at_place) & copies["SOPInstanceUID"].notna()
    keep = truncated & ~has_whole.reindex(frame.index, fill_value=False)
    return (whole | keep) & named


def _header_values(frame: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """Most frequent value of each column among the instances of the most frequent ImageType.

    Copies of an instance count too, because the choice among them must not decide; each of their
    values counts once.
    """
    copies = frame["reason"] == FileReason.DUPLICATE_INSTANCE.value
    voters = frame[frame.index.isin(members.index) | copies]
    kinds = voters.assign(kind=voters["ImageType"].fillna(""))
    prevailing = _prevailing(kinds, "kind")
    kinds = kinds[kinds["kind"] == kinds["series"].map(prevailing)]
    # A series without members still has its study, patient and modality.
    without_members = ~frame["series"].isin(members["series"].unique())
    kinds = pd.concat([kinds, frame[without_members]])
    values = frame.groupby("series")[_GROUP].first()
    for name in _VALUES:
        values[name] = _prevailing(kinds, name)
    values[_PATIENT] = _prevailing(frame, _PATIENT, only=True)
    values[_FRAME] = _prevailing(kinds, _FRAME, unambiguous=True)
    for name in ("XRayTubeCurrent", "Exposure"):
        values[name] = members.groupby("series")[name].median()
    values["acquisition_time_s"] = members.groupby("series")["acquisition_time_s"].min()
    return values


def _prevailing(
    rows: pd.DataFrame, name: str, *, only: bool = False, unambiguous: bool = False
) -> pd.Series[Any]:
    """Most frequent non-null value of a column in each series, the lowest of equally frequent ones.

    Parameters
    ----------
    rows : instances with their `series`.
    name : column.
    only : null where there is more than one value.
    unambiguous : null where several values are equally frequent.
    """
    found = rows[["series", name]].dropna().drop_duplicates()
    contested = found["series"].duplicated(keep=False)
    agreed = found[~contested].set_index("series")[name]
    if only or not contested.any():
        return agreed
    open_series = found.loc[contested, "series"].unique()
    votes = rows.loc[rows["series"].isin(open_series), ["series", "SOPInstanceUID", name]]
    votes = votes.dropna(subset=[name]).drop_duplicates()
    counts = votes.groupby(["series", name]).size().rename("n").reset_index()
    counts = counts.sort_values(["series", "n", name], ascending=[True, False, True])
    most = counts["n"] == counts.groupby("series")["n"].transform("max")
    counts = counts[most]
    if unambiguous:
        counts = counts[~counts["series"].duplicated(keep=False)]
    decided = counts.drop_duplicates("series").set_index("series")[name]
    values: pd.Series[Any] = pd.concat([agreed, decided])
    return values


def _counts(frame: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    grouped = members.groupby("series")
    frames = members["NumberOfFrames"].fillna(1).clip(1, 1e6)
    skipped = (FileReason.TRUNCATED.value, FileReason.DUPLICATE_INSTANCE.value)
    unusable = frame["reason"].notna() & ~frame["reason"].isin(skipped)
    unusable |= frame["SeriesInstanceUID"] == ""
    truncated = members["reason"] == FileReason.TRUNCATED.value
    table = pd.DataFrame(
        {
            "n_files": grouped.size(),
            "n_slices": frames.groupby(members["series"]).sum(),
            "n_truncated": truncated.groupby(members["series"]).sum(),
            "has_contrast_agent": _any(members, "has_contrast_agent"),
            "has_gating": _any(members, "has_gating"),
        },
        index=pd.RangeIndex(int(frame["series"].max()) + 1, name="series"),
    )
    table["n_unusable"] = unusable.groupby(frame["series"]).sum()
    flags = ["has_contrast_agent", "has_gating"]
    table[flags] = table[flags].eq(True)
    counts = ["n_files", "n_slices", "n_truncated", "n_unusable"]
    table[counts] = table[counts].fillna(0).clip(upper=2**31 - 1).astype("int64")
    return table


def _any(members: pd.DataFrame, name: str) -> pd.Series[bool]:
    return members[name].eq(True).groupby(members["series"]).any()


def _normals(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Slice normals, shape (rows, 3); NaN where the orientation is missing."""
    cosines = frame[_COSINES].to_numpy(np.float64)
    normals = np.cross(cosines[:, :3], cosines[:, 3:])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(normals / lengths)


def _spacing(members: pd.DataFrame, normals: NDArray[np.float64]) -> pd.DataFrame:
    """Increment and coverage of each series along its slice normal (PS3.3 C.7.6.2.1.1)."""
    points = members[_POSITION].to_numpy(np.float64)
    along = np.einsum("ij,ij->i", points, normals)
    known = ~np.isnan(along)
    result = increments(members["series"].to_numpy()[known], along[known])
    result["coverage_mm"] = result.pop("extent_mm") + result["slice_increment_mm"]
    frames = members.groupby("series")[["frame_increment_mm", "frame_coverage_mm"]].max()
    frames = frames.dropna()
    total = frames["frame_coverage_mm"] + frames["frame_increment_mm"]
    result = result.reindex(result.index.union(frames.index))
    result.loc[frames.index, "slice_increment_mm"] = frames["frame_increment_mm"]
    result.loc[frames.index, "coverage_mm"] = total
    return result


def increments(series: NDArray[np.int64], along_mm: NDArray[np.float64]) -> pd.DataFrame:
    """`increment_and_extent` of every series at once: a hundred thousand have no loop to wait for.

    Parameters
    ----------
    series : series of each slice.
    along_mm : position of each slice along the normal of its series.
    """
    order = np.lexsort((along_mm, series))
    series, along_mm = series[order], along_mm[order]
    names, first, sizes = np.unique(series, return_index=True, return_counts=True)
    steps, inside = np.diff(along_mm), series[1:] == series[:-1]
    gaps = inside & (steps > SAME_POSITION_MM)
    owner, steps = series[1:][gaps], steps[gaps]
    steps = steps[np.lexsort((steps, owner))]  # `owner` is in order already
    having, start, n = np.unique(owner, return_index=True, return_counts=True)
    middle = (steps[start + (n - 1) // 2] + steps[start + n // 2]) / 2
    extents = along_mm[first + sizes - 1] - along_mm[first]
    table = pd.DataFrame({"extent_mm": extents}, index=names)
    table["slice_increment_mm"] = pd.Series(middle, index=having)
    return table


def _digests(frame: pd.DataFrame) -> list[str]:
    """SHA-256 of each series over pseudonyms, sizes, patients and dates of its instances.

    Files without SOPInstanceUID are represented by their size. Copies with equal bytes count once;
    copies that differ are included with the digest of their bytes.
    """
    copy = frame["content_digest"].notna()
    kept = frame[(frame["reason"] != FileReason.DUPLICATE_INSTANCE.value) | copy]
    instance = ["series", "SOPInstanceUID", *_POSITION]
    again = kept.duplicated([*instance, "content_digest"]) & kept["content_digest"].notna()
    kept = kept[~again]
    copies = kept[kept["content_digest"].notna()]
    several = copies.duplicated(instance, keep=False)
    marks = copies.loc[several, "content_digest"].reindex(kept.index).fillna("")
    columns = {
        "series": kept["series"],
        "uid": kept["SOPInstanceUID"].fillna(""),
        "size": kept["size_bytes"],
        "patient": kept[_PATIENT].fillna(""),
        "date": kept["study_date"].fillna("").astype(str),
        "mark": marks,
    }
    lines = pd.DataFrame(columns).sort_values(list(columns))
    hashes = [hashlib.sha256() for _ in range(int(frame["series"].max()) + 1)]
    for number, *values in zip(*(lines[name] for name in columns), strict=True):
        hashes[number].update((" ".join(map(str, values)) + "\n").encode())
    return [item.hexdigest() for item in hashes]


def _layouts(members: pd.DataFrame) -> pd.Series[Any]:
    """SHA-256 of each series over sizes, positions and numbers of its instances, sorted."""
    columns = ["size_bytes", *_POSITION, "InstanceNumber", "AcquisitionNumber"]
    numbers = members[columns].to_numpy(np.float64)
    series = members["series"].to_numpy()
    order = np.lexsort((*numbers.T[::-1], series))
    starts = np.flatnonzero(np.diff(series[order])) + 1
    digests = {
        series[places[0]]: hashlib.sha256(numbers[places].tobytes()).hexdigest()
        for places in np.split(order, starts)
        if len(places)
    }
    return pd.Series(digests, dtype=object)


def _to_arrow(table: pd.DataFrame) -> pa.Table:
    schema = SERIES.arrow_schema
    columns = {}
    for field in schema:
        values = table[field.name]
        if pa.types.is_integer(field.type):
            values = values.astype("Int64")
        columns[field.name] = pa.array(values, field.type, from_pandas=True)
    return SERIES.validate(pa.table(columns))
