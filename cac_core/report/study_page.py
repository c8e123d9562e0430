"""The page of one study: score, key slices, lesions, quality, acquisition, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from cac_core.errors import CacError
from cac_core.report.overlay import (
    CORONARY_COLOUR,
    HEART_COLOUR,
    NONCORONARY_COLOUR,
    KeySlice,
    key_slice,
)
from cac_core.report.page import (
    Cell,
    DataTable,
    Neighbour,
    Page,
    Section,
    columns,
    number,
    render,
)
from schemas.codes import (
    CAC_CATEGORIES,
    CalciumClass,
    PreviewChoice,
    QualityFlag,
    ReviewReason,
    Status,
    StudyReason,
)
from schemas.score import CATEGORY_CHANCES

Row = Mapping[str, Any]

_CLASS_NAMES = {CalciumClass.CORONARY.value: "coronary", CalciumClass.NONCORONARY.value: "other"}
_LEGEND = (
    ("heart contour", HEART_COLOUR),
    ("coronary calcium", CORONARY_COLOUR),
    ("other calcium", NONCORONARY_COLOUR),
)
_SECONDS = (
    ("reading", "seconds_read"),
    ("heart network", "seconds_heart"),
    ("calcium network", "seconds_calcium"),
    ("lesions and quality", "seconds_score"),
    ("pictures", "seconds_preview"),
)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """Rows of the warehouse for one study, by one model and protocol.

    Parameters
    ----------
    model : name of the model.
    score : its row of `scores`.
    lesions, previews : its rows of those tables.
    linked : its row of `linked`, for expert and visual readings; None if not linked.
    """

    model: str
    score: Row
    lesions: Sequence[Row] = ()
    previews: Sequence[Row] = ()
    linked: Row | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def study_page(record: StudyRecord, neighbours: Sequence[Neighbour] = (), mark: str = "") -> str:
    """The page as HTML, one self-contained file; the same rows give the same bytes.

    Parameters
    ----------
    neighbours : links to pages beside this one.
    mark : stands above the title, for instance that the result is for research.
    """
    score = record.score
    scored = score["status"] == Status.SCORED.value
    names = ("Score", "Key slices", "Lesions") if scored else ("No score",)
    identifiers = ("result", "slices", "lesions") if scored else ("result",)
    sections = [Section(*pair) for pair in zip(identifiers, names, strict=True)]
    sections += [Section(name.lower(), name) for name in ("Quality", "Acquisition", "Provenance")]
    page = Page(
        f"Study {score['study_key'][:12]}",
        f"Coronary calcium, one study. {mark}" if mark else "Coronary calcium, one study",
        f"{score['study_date'] or 'date unknown'}, study key {score['study_key']}",
        tuple(sections),
        tuple(neighbours),
    )
    values: dict[str, object] = {
        "failure": None if scored else _failure(score),
        "flags": _flags(score["quality_flags"]),
        "acquisition": _acquisition(score),
        "provenance": _provenance(record),
        "seconds": [(name, f"{score[key]:.3f}") for name, key in _SECONDS if score[key]],
    }
    if scored:
        slices = _slices(record.previews)
        values |= {
            "tiles": _tiles(score),
            "chances": _chances(score),
            "reviews": _reasons(score["review_reasons"]),
            "readings": _readings(record),
            "slices": slices,
            "window": _window(record.previews),
            "legend": _LEGEND,
            "lesions": _lesions(record.lesions, {item.slice_index for item in slices}),
        }
    return render("study.html.j2", page, **values)


def write_study_pages(
    records: Iterable[StudyRecord], folder: Path, report: str | None = None
) -> dict[str, Path]:
    """Write a page per study, `<study_key>.html`, and return the files by study key.

    Each page links to the one before and after it.

    Parameters
    ----------
    report : address of the report that the pages belong to, relative to the folder.

    Raises
    ------
    CacError
        If the folder cannot be written.
    """
    written = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before: str | None = None
        for record, following in pairwise(chain(records, (None,))):
            assert record is not None  # only the last is
            key, after = _key(record), None if following is None else _key(following)
            written[key] = folder / f"{key}.html"
            text = study_page(record, _neighbours(before, after, report))
            written[key].write_text(text, encoding="utf-8")
            before = key
    except OSError as error:
        raise CacError(
            f"The folder {folder} cannot be written ({error.strerror}).", "Name another with --out."
        ) from None
    return written


def _key(record: StudyRecord) -> str:
    return str(record.score["study_key"])


def _neighbours(before: str | None, after: str | None, report: str | None) -> list[Neighbour]:
    """Links to the report and to the pages of the studies before and after."""
    links = [] if report is None else [Neighbour("Cohort report", report)]
    for title, key, relation in (("Previous", before, "prev"), ("Next", after, "next")):
        if key is not None:
            links.append(Neighbour(f"{title} study, {key[:12]}", f"{key}.html", relation))
    return links


def _failure(score: Row) -> dict[str, str]:
    return {
        "status": str(score["status"]),
        "reason": str(score["reason"]),
        "meaning": StudyReason(score["reason"]).description,
        "detail": score["detail"] or "",
    }


def _tiles(score: Row) -> list[tuple[str, str]]:
    return [
        ("Agatston", f"{score['agatston']:,.1f}"),
        ("category", str(score["cac_category"])),
        ("90 % interval", _interval(score)),
        ("needs review", _yes_no(score["needs_review"])),
        ("coronary lesions", str(score["n_lesions"])),
        ("coronary volume, mm3", f"{score['calcium_volume_mm3']:,.0f}"),
        ("Agatston of other calcium", f"{score['agatston_noncoronary']:,.1f}"),
    ]


def _interval(score: Row) -> str:
    if score["agatston_low"] is None:
        return "not known"
    return f"{score['agatston_low']:,.0f} to {score['agatston_high']:,.0f}"


def _yes_no(value: bool | None) -> str:
    return "not known" if value is None else ("yes" if value else "no")


def _chances(score: Row) -> list[tuple[str, str]]:
    """Chance of each category; none for a score of an earlier version."""
    pairs = zip(CAC_CATEGORIES, CATEGORY_CHANCES, strict=True)
    return [
        (f"category {category}", f"{100 * score[name]:.0f} %")
        for category, name in pairs
        if score[name] is not None
    ]


def _reasons(joined: str | None) -> list[tuple[str, str]]:
    return [(name, ReviewReason(name).description) for name in (joined or "").split(";") if name]


def _readings(record: StudyRecord) -> DataTable | None:
    """Readings of the networks and of people; None without the latter."""
    linked = record.linked or {}
    rows: list[list[Cell | str]] = []
    if linked.get("expert_agatston") is not None:
        expert = number(linked["expert_agatston"], 1)
        rows.append(["expert", expert, str(linked["expert_cac_category"])])
    if linked.get("visual_grade") is not None:
        rows.append(["visual estimate", "", str(linked["visual_grade"])])
    if not rows:
        return None
    own = number(record.score["agatston"], 1)
    rows.insert(0, [f"networks ({record.model})", own, str(record.score["cac_category"])])
    heads = columns(("read by",), ("Agatston",))
    return DataTable(
        "readings",
        "Readings of this study",
        (*heads, *columns(("category or grade",))),
        rows,
        note="The expert's marks are not in the warehouse; pictures show those of the networks.",
    )


def _slices(previews: Sequence[Row]) -> list[KeySlice]:
    drawn = []
    for row in sorted(previews, key=lambda row: row["slice_index"]):
        index = row["slice_index"]
        why = PreviewChoice(row["shown_for"])
        text = f"Slice {index} at {row['slice_position_mm']:.1f} mm"
        if why is PreviewChoice.CORONARY:
            text += f", Agatston {row['agatston']:,.1f} in this slice"
        else:
            text += ", " + ("other calcium" if why is PreviewChoice.NONCORONARY else "mid-heart")
        drawn.append(key_slice(row, f"slice-{index}", text))
    return drawn


def _window(previews: Sequence[Row]) -> str:
    if not previews:
        return ""
    first = previews[0]
    return f"black is {first['window_low_hu']:.0f} HU, white is {first['window_high_hu']:.0f} HU"


def _lesions(lesions: Sequence[Row], shown: set[int]) -> DataTable:
    rows: list[list[Cell | str]] = []
    for row in sorted(lesions, key=lambda row: (row["slice_index"], -row["agatston"])):
        index = row["slice_index"]
        href = f"#slice-{index}" if index in shown else None
        rows.append(
            [
                Cell(str(index), float(index), href),
                _CLASS_NAMES[row["calcium_class"]],
                number(row["agatston"], 1),
                number(row["area_mm2"], 1),
                number(row["peak_hu"]),
                number(row["mean_hu"]),
                number(row["density_weight"]),
                number(row["volume_mm3"], 1),
            ]
        )
    numeric = ("Agatston", "area, mm2", "peak HU", "mean HU", "weight", "volume, mm3")
    return DataTable(
        "lesion-table",
        f"{len(rows)} lesions, slice by slice",
        columns(("slice", "class"), numeric),
        rows,
        filterable=len(rows) > 15,
        note="Slices with a picture are linked. Other calcium is not part of the score.",
        empty="No calcium was found inside the heart.",
    )


def _flags(joined: str) -> list[tuple[str, str]]:
    return [(name, QualityFlag(name).description) for name in joined.split(";") if name]


def _acquisition(score: Row) -> list[tuple[str, str]]:
    """Names and known values."""
    texts: list[tuple[str, str | None]] = [
        ("manufacturer", score["Manufacturer"]),
        ("scanner", score["ManufacturerModelName"]),
        ("tube voltage", _measure(score["KVP"], 0, "kV")),
        ("tube current", _measure(score["XRayTubeCurrent"], 0, "mA")),
        ("kernel", score["ConvolutionKernel"]),
        ("acquisition", score["ctac_role"]),
        ("slices", _measure(score["n_slices"], 0)),
        ("slice increment", _measure(score["slice_increment_mm"], 2, "mm")),
        ("slice thickness", _measure(score["slice_thickness_mm"], 2, "mm")),
        ("pixel size", _pixel_size(score)),
        ("calcium threshold", _measure(score["threshold_hu"], 0, "HU")),
        ("noise in the heart", _measure(score["noise_hu"], 1, "HU")),
        ("volume of the heart", _measure(score["heart_volume_ml"], 0, "ml")),
        ("transfer syntax", score["TransferSyntaxUID"]),
    ]
    return [(name, value) for name, value in texts if value]


def _measure(value: float | None, digits: int, unit: str = "") -> str | None:
    return number(value, digits, unit).text or None


def _pixel_size(score: Row) -> str | None:
    if score["row_spacing_mm"] is None:
        return None
    return f"{score['row_spacing_mm']:.3f} x {score['column_spacing_mm']:.3f} mm"


def _provenance(record: StudyRecord) -> list[tuple[str, str]]:
    score = record.score
    facts = [
        ("model", record.model),
        ("model digest", score["model_digest"]),
        ("protocol digest", score["protocol_digest"]),
        ("core version", score["core_version"]),
        ("scored at", f"{score['scored_at']:%Y-%m-%d %H:%M:%S} UTC"),
        ("run", score["run_id"]),
        ("digest of the instances", score["instances_digest"]),
        ("digest of the pixels", score["pixel_digest"]),
        ("patient key", score["patient_key"]),
        *((f"{name} version", version) for name, version in sorted(record.versions.items())),
    ]
    return [(name, str(value)) for name, value in facts if value]
