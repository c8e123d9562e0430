"""From instances to series: one row per series, with counts, geometry and a digest.

Values come from the instances of the series' most frequent ImageType, so that one stray localizer
does not speak for the series; the volume assembly later refuses the stray itself.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from schemas.codes import FileReason
from schemas.instance import INSTANCES
from schemas.series import SERIES

_GROUP = ["study_key", "SeriesInstanceUID"]
#: Positions closer than this are one position; slices of a CT are far thicker.
_SAME_POSITION_MM = 0.01
_FIRST = (
    *("patient_key", "FrameOfReferenceUID", "study_date", "Modality", "SOPClassUID"),
    *("TransferSyntaxUID", "ImageType", "SeriesDescription", "StudyDescription", "ProtocolName"),
    *("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "LossyImageCompression"),
    *("SeriesNumber", "Rows", "Columns", "KVP", "SliceThickness"),
    *("row_spacing_mm", "column_spacing_mm", "ReconstructionDiameter", "axial_cosine"),
)
_COSINES = [f"{axis}_cosine_{part}" for axis in ("row", "column") for part in "xyz"]
_POSITION = [f"position_{part}_mm" for part in "xyz"]


def series_table(instances: pa.Table) -> pa.Table:
    """Gather `instances` into `series`, undecided (`selected` false, no reason).

    Instances that are duplicates count once; truncated ones count as slices and in `n_truncated`.
    Files known to belong to a study but without a usable header or UIDs count in `n_unusable`, so
    that no study vanishes because its files are bad.

    Parameters
    ----------
    instances : table of `schemas.instance.INSTANCES`, rows in any order.

    Returns
    -------
    Table of `schemas.series.SERIES`, ordered by study and series.
    """
    wanted = [n for n in INSTANCES.arrow_schema.names if n not in ("path_key", "mtime_ns")]
    frame = instances.select(wanted).to_pandas()
    frame = frame[frame["study_key"].notna()]
    if frame.empty:
        return SERIES.empty()
    # A null key would drop out of every grouping; an empty text groups and sorts.
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
    table["SeriesInstanceUID"] = table["SeriesInstanceUID"].replace("", None)
    table = table.rename(columns={"ReconstructionDiameter": "reconstruction_diameter_mm"})
    table = table.assign(selected=False, reason=None, rank_score=None, ctac_role=None, evidence="")
    return _to_arrow(table)


def member_rows(frame: pd.DataFrame) -> pd.Series[bool]:
    """Mark the rows that are slices of a series: whole instances, and truncated ones.

    A truncated file is passed over where a whole copy of the same instance exists.
    """
    whole = frame["reason"].isna()
    truncated = frame["reason"] == FileReason.TRUNCATED.value
    names = [*_GROUP, "SOPInstanceUID"]
    copies = frame.loc[whole | truncated, names].assign(whole=whole)
    has_whole = copies.groupby(names, dropna=False)["whole"].transform("any")
    has_whole &= copies["SOPInstanceUID"].notna()
    keep = truncated & ~has_whole.reindex(frame.index, fill_value=False)
    return (whole | keep) & frame["SeriesInstanceUID"].fillna("").ne("")


def _header_values(frame: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """First present value of each column among the instances of the prevailing ImageType."""
    kinds = members.assign(kind=members["ImageType"].fillna(""))
    sizes = kinds.groupby(["series", "kind"]).size().reset_index(name="n")
    sizes = sizes.sort_values(["series", "n", "kind"], ascending=[True, False, True])
    prevailing = sizes.drop_duplicates("series").set_index("series")["kind"]
    speaks = kinds["kind"] == kinds["series"].map(prevailing)
    columns = list(_FIRST)
    values = kinds[speaks].groupby("series")[columns].first()
    # A series without members still names its study, patient and modality.
    fallback = frame.groupby("series")[columns].first()
    values = values.reindex(fallback.index)
    lacking = ~fallback.index.isin(members["series"].unique())
    values.loc[lacking] = fallback.loc[lacking]
    for name in ("XRayTubeCurrent", "Exposure"):
        values[name] = members.groupby("series")[name].median()
    return frame.groupby("series")[_GROUP].first().join(values)


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
    places = pd.DataFrame(
        {"series": members["series"], "place": np.einsum("ij,ij->i", points, normals)}
    )
    places = places.dropna().sort_values(["series", "place"])
    gaps = places.groupby("series")["place"].diff()
    distinct = gaps[gaps > _SAME_POSITION_MM]
    increment = distinct.groupby(places["series"]).median()
    ends = places.groupby("series")["place"].agg(["min", "max"])
    result = pd.DataFrame({"slice_increment_mm": increment})
    result["coverage_mm"] = ends["max"] - ends["min"] + increment
    frames = members.groupby("series")[["frame_increment_mm", "frame_coverage_mm"]].max()
    frames = frames.dropna()
    total = frames["frame_coverage_mm"] + frames["frame_increment_mm"]
    result = result.reindex(result.index.union(frames.index))
    result.loc[frames.index, "slice_increment_mm"] = frames["frame_increment_mm"]
    result.loc[frames.index, "coverage_mm"] = total
    return result


def _digests(frame: pd.DataFrame) -> list[str]:
    """SHA-256 of each series over its instances' pseudonyms and sizes; frame is sorted by them.

    Files without a SOPInstanceUID count with their size; duplicates do not count.
    """
    kept = frame[frame["reason"] != FileReason.DUPLICATE_INSTANCE.value]
    hashes = [hashlib.sha256() for _ in range(int(frame["series"].max()) + 1)]
    uids = kept["SOPInstanceUID"].fillna("")
    for number, uid, size in zip(kept["series"], uids, kept["size_bytes"], strict=True):
        hashes[number].update(f"{uid} {size}\n".encode())
    return [item.hexdigest() for item in hashes]


def _to_arrow(table: pd.DataFrame) -> pa.Table:
    schema = SERIES.arrow_schema
    columns = {}
    for field in schema:
        values = table[field.name]
        if pa.types.is_integer(field.type):
            values = values.astype("Int64")
        columns[field.name] = pa.array(values, field.type, from_pandas=True)
    return SERIES.validate(pa.table(columns))
