"""Selection of the CTAC series: every vendor, every reason, ties, site rules."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydicom.data import get_testdata_files

from cac_core.dicom.descriptions import plain_words
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules, text_policy
from cac_core.dicom.series import series_table
from cac_core.dicom.studies import (
    chosen_files,
    decide_studies,
    rejected_digest,
    selection_flags,
    study_reasons,
)
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from schemas.codes import QualityFlag, SeriesReason, StudyReason
from schemas.instance import INSTANCES
from schemas.series import SERIES
from tests.builders.dicom_files import (
    CAPTURE_CLASS,
    NM_CLASS,
    VENDORS,
    ct_dataset,
    write_dicom,
    write_slices,
)

KEYS = Keyring(b"a secret of the selection tests")
RULES = load_rules()
STUDY = KEYS.study_key("1.2.3.4")


def series_row(number: int = 1, study: str = "s", **changes: Any) -> dict[str, Any]:
    """Make a row of `series` as a CTAC of a GE scanner gives it."""
    row: dict[str, Any] = {
        "study_key": KEYS.study_key(study),
        "SeriesInstanceUID": KEYS.pseudonym_uid(f"{study}.{number}"),
        "FrameOfReferenceUID": KEYS.pseudonym_uid(f"{study}.frame"),
        "Modality": "CT",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "SeriesDescription": "CTAC",
        "ManufacturerModelName": "Discovery NM/CT 670",
        "ConvolutionKernel": "STANDARD",
        "SeriesNumber": number,
        "Rows": 512,
        "Columns": 512,
        "KVP": 120.0,
        "XRayTubeCurrent": 20.0,
        "SliceThickness": 5.0,
        "row_spacing_mm": 0.98,
        "column_spacing_mm": 0.98,
        "reconstruction_diameter_mm": 500.0,
        "slice_increment_mm": 5.0,
        "coverage_mm": 220.0,
        "axial_cosine": 1.0,
        "n_files": 44,
        "n_slices": 44,
        "n_truncated": 0,
        "n_unusable": 0,
        "has_contrast_agent": False,
        "has_gating": False,
        "instances_digest": hashlib.sha256(f"{study}.{number}".encode()).hexdigest(),
        "selected": False,
        "evidence": "",
    }
    return row | changes


def decide(*rows: dict[str, Any], rules: Any = RULES) -> list[dict[str, Any]]:
    decided: list[dict[str, Any]] = select_series(SERIES.from_rows(rows), rules).to_pylist()
    for row in decided:
        assert row["selected"] == (row["reason"] is None)
    return decided


R = SeriesReason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "NM", "SeriesDescription": "AC Rest Recon"}, R.NOT_CT),
        ({"Modality": "SR"}, R.NOT_CT),
        ({"Modality": None, "SOPClassUID": None}, R.NOT_CT),
        ({"SOPClassUID": CAPTURE_CLASS}, R.NOT_CT_IMAGE),
        ({"n_unusable": 1}, R.UNUSABLE_FILES),
        ({"n_files": 0, "n_slices": 0}, R.UNUSABLE_FILES),
        ({"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, R.LOCALIZER),
        ({"SeriesDescription": "Topogram 0.6 T20s"}, R.LOCALIZER),
        ({"ImageType": "DERIVED\\SECONDARY\\AXIAL"}, R.DERIVED),
        ({"ImageType": "DERIVED\\PRIMARY\\REFORMATTED\\AVERAGE"}, R.DERIVED),
        ({"SeriesDescription": "Fused CTAC and SPECT"}, R.DERIVED),
        ({"axial_cosine": 0.02}, R.NOT_AXIAL),
        ({"ImageType": "ORIGINAL\\PRIMARY\\CORONAL"}, R.NOT_AXIAL),
        ({"has_contrast_agent": True}, R.CONTRAST_AGENT),
        ({"KVP": 70.0}, R.KVP_OUT_OF_RANGE),
        ({"KVP": 150.0}, R.KVP_OUT_OF_RANGE),
        ({"n_slices": 19}, R.TOO_FEW_SLICES),
        ({"coverage_mm": 99.0}, R.COVERAGE_TOO_SHORT),
        ({"reconstruction_diameter_mm": 250.0}, R.FIELD_OF_VIEW_TOO_SMALL),
        ({"reconstruction_diameter_mm": None, "Columns": 256}, R.FIELD_OF_VIEW_TOO_SMALL),
        ({"has_gating": True}, R.GATED_CARDIAC),
        ({"SeriesDescription": "SmartScore - Gated 0.5 sec"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "CaScSeq 3.0 B35f"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "CTAC GATED STRESS", "has_gating": True}, R.GATED_CARDIAC),
        ({"SeriesDescription": "HEART GATED STRESS"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "GATED no AC"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "CTAC ECG"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "Calcium Scoring"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "CTA Coronary"}, R.GATED_CARDIAC),
        ({"SeriesDescription": None, "ProtocolName": "ECG GATED HEART"}, R.GATED_CARDIAC),
        ({"SeriesDescription": "Lung 5.0 B70f"}, R.EXCLUDED_DESCRIPTION),
        ({"SeriesDescription": "Dose Report"}, R.EXCLUDED_DESCRIPTION),
        ({"SeriesDescription": "THORAX with contrast"}, R.EXCLUDED_DESCRIPTION),
        ({"SeriesDescription": "umap CT"}, R.EXCLUDED_DESCRIPTION),
        ({"ConvolutionKernel": "LUNG"}, R.EXCLUDED_KERNEL),
        ({"ConvolutionKernel": "B70f"}, R.EXCLUDED_KERNEL),
        ({"ConvolutionKernel": "Br64d\\3"}, R.EXCLUDED_KERNEL),
    ],
)
def test_wrong_values_reject(changes: dict[str, Any], reason: SeriesReason) -> None:
    (row,) = decide(series_row(**changes))
    assert row["reason"] == reason.value
    both = decide(series_row(1), series_row(2, **changes))
    assert [item["selected"] for item in both] == [True, False]
    assert both[1]["reason"] == reason.value


@pytest.mark.parametrize(
    "description",
    [
        "CTAC",
        "CT_AC",
        "CTAC5mm rest",
        "AC CT 3.0 B30s",
        "ct-ac heart",
        "CT Attn Corr",
        "Attenuation Correction CT",
        "AC_CT non-gated",
        "CTAC GATED STRESS",
        "Attenuation Corr. gated rest",
        "AC gated",
        "CTAC ungated",
        "CTAC without contrast",
        "AC CT w/o IV contrast",
    ],
)
def test_descriptions_that_mark_a_ctac(description: str) -> None:
    plain = {"ManufacturerModelName": "Sensation 64"}
    (row,) = decide(series_row(SeriesDescription=description, **plain))
    assert row["selected"]
    assert "no_ctac_evidence" not in row["evidence"]


@pytest.mark.parametrize("description", ["CHEST", "THORAX VAC", "ACUTE", "NON AC", "TACO", None])
def test_descriptions_without_a_mark(description: str | None) -> None:
    row = series_row(SeriesDescription=description, ManufacturerModelName="Sensation 64")
    assert "no_ctac_evidence" in decide(row)[0]["evidence"].split(";")


def test_nac_is_not_ac() -> None:
    nac, ac = decide(series_row(1, SeriesDescription="NAC"), series_row(2, SeriesDescription="AC"))
    assert (nac["reason"], ac["selected"]) == ("excluded_description", True)


def test_missing_values_lower_the_rank_only() -> None:
    whole, bare = decide(
        series_row(2),
        series_row(1, KVP=None, ConvolutionKernel=None, ImageType=None, coverage_mm=None),
    )
    assert whole["selected"] and bare["reason"] == "outranked"
    (alone,) = decide(series_row(1, KVP=None, ConvolutionKernel=None))
    assert alone["selected"]
    assert {"missing_kvp", "missing_kernel"} <= set(alone["evidence"].split(";"))
    assert decide(series_row(KVP=0.0))[0]["selected"]


def test_plain_chest_ct_only_where_allowed(tmp_path: Path) -> None:
    plain = series_row(SeriesDescription="CHEST", ManufacturerModelName="Sensation 64")
    assert decide(plain)[0]["selected"]
    site = tmp_path / "site.toml"
    site.write_text("[required]\nallow_without_mark = false\n")
    rules = load_rules(site)
    assert decide(plain, rules=rules)[0]["reason"] == "no_ctac_evidence"
    assert decide(series_row(), rules=rules)[0]["selected"]


def test_nm_frame_of_reference_is_evidence() -> None:
    chest = {"SeriesDescription": "CHEST", "ManufacturerModelName": "Sensation 64"}
    nuclear = series_row(3, Modality="NM", SOPClassUID=NM_CLASS)
    elsewhere = KEYS.pseudonym_uid("elsewhere")
    rows = decide(
        series_row(1, **chest, FrameOfReferenceUID=elsewhere), series_row(2, **chest), nuclear
    )
    assert [row["selected"] for row in rows] == [False, True, False]
    assert "nm_frame_of_reference" in rows[1]["evidence"]
    assert "no_ctac_evidence" not in rows[1]["evidence"]
    # The frame of an NM series of another study is not evidence.
    alone, _ = decide(series_row(2, **chest), nuclear | {"study_key": KEYS.study_key("t")})
    assert "nm_frame_of_reference" not in alone["evidence"]


def test_ties_are_broken_in_order() -> None:
    rest = {"SeriesDescription": "CTAC Rest"}
    stress = {"SeriesDescription": "CTAC Stress", "n_slices": 60, "n_files": 60}
    rows = decide(series_row(1, **stress), series_row(2, **rest))
    assert [(row["ctac_role"], row["selected"]) for row in rows] == [
        ("stress", False),
        ("rest", True),
    ]
    more = decide(series_row(1), series_row(2, n_slices=45, n_files=45))
    assert [row["selected"] for row in more] == [False, True]
    lower = decide(series_row(5), series_row(4), series_row(6, SeriesNumber=None))
    assert [row["selected"] for row in lower] == [False, True, False]
    equal = [series_row(n, SeriesNumber=1) for n in range(5)]
    first = min(row["SeriesInstanceUID"] for row in equal)
    assert [row["SeriesInstanceUID"] for row in decide(*equal) if row["selected"]] == [first]


def test_row_order_and_other_studies_do_not_matter() -> None:
    chance = random.Random(3)
    descriptions = ["CTAC", "CTAC rest", "CTAC stress", "CHEST", "Scout", "SmartScore", None]
    rows = [
        series_row(n, study=str(n % 9), SeriesDescription=chance.choice(descriptions))
        for n in range(90)
    ]
    reference = {row["SeriesInstanceUID"]: row for row in decide(*rows)}
    chosen = [row["study_key"] for row in reference.values() if row["selected"]]
    assert len(chosen) == len(set(chosen)) == 9
    for _ in range(5):
        chance.shuffle(rows)
        assert {row["SeriesInstanceUID"]: row for row in decide(*rows)} == reference


def test_a_complete_series_ranks_above_a_truncated_one() -> None:
    cut, whole = decide(
        series_row(1, SeriesDescription="CTAC rest", n_truncated=1),
        series_row(2, SeriesDescription="CTAC stress"),
    )
    assert (cut["reason"], whole["selected"]) == ("outranked", True)
    assert decide(series_row(1, n_truncated=1))[0]["selected"]


def test_empty_table() -> None:
    assert select_series(SERIES.empty(), RULES).num_rows == 0
    assert decide_studies(INSTANCES.empty(), SERIES.empty(), "rules").num_rows == 0


def test_study_reasons_flags_and_digests() -> None:
    table = select_series(
        SERIES.from_rows(
            [
                series_row(1, "scored"),
                series_row(2, "scored", SeriesDescription="CTAC stress"),
                series_row(1, "plain", SeriesDescription="CHEST", ManufacturerModelName=None),
                series_row(1, "nuclear", Modality="NM"),
                series_row(1, "capture", SOPClassUID=CAPTURE_CLASS),
                series_row(1, "contrast", has_contrast_agent=True),
                series_row(2, "contrast", Modality="NM"),
            ]
        ),
        RULES,
    )
    key = KEYS.study_key
    assert study_reasons(table) == {
        key("nuclear"): StudyReason.NO_CT_SERIES,
        key("capture"): StudyReason.NO_CT_SERIES,
        key("contrast"): StudyReason.NO_CTAC_SERIES,
    }
    assert selection_flags(table) == {
        key("scored"): (QualityFlag.SEVERAL_CTAC_SERIES,),
        key("plain"): (QualityFlag.NO_CTAC_EVIDENCE,),
    }
    decided = decide_studies(INSTANCES.empty(), table, "rules").to_pylist()
    digests = {row["study_key"]: row["instances_digest"] for row in decided}
    assert digests[key("scored")] == hashlib.sha256(b"scored.1").hexdigest()
    both = sorted(hashlib.sha256(f"contrast.{n}".encode()).hexdigest() for n in (1, 2))
    assert digests[key("contrast")] == rejected_digest(both, "rules")
    text = "\n".join(["rules", *both])
    assert digests[key("contrast")] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "colour"),
        ("[required]\nkvp_minimum = 3", "required.kvp_minimum"),
        ("[required]\nkvp_min = 'low'", "required.kvp_min"),
        ("[[exclude]]\nname='x'\npattern='('\nreason='derived'", "exclude.0.pattern"),
        ("[[exclude]]\nname='x'\npattern='x'\nreason='dull'", "exclude.0.reason"),
        (
            "[[prefer]]\nname='a b'\npattern='x'\nfields=[]\nweight=1\nmark=true",
            "prefer.0.name",
        ),
        ("no toml", "not valid TOML"),
    ],
)
def test_faults_of_the_rules_file_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named.replace(".", r"\.")):
        load_rules(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_rules(tmp_path / "none.toml")


def test_a_site_changes_one_number(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("[required]\nmin_slices = 10\n")
    rules = load_rules(path)
    assert rules.required.kvp_max == RULES.required.kvp_max
    assert rules.digest != RULES.digest == load_rules().digest
    assert decide(series_row(n_slices=12), rules=rules)[0]["selected"]


def test_plain_words() -> None:
    assert plain_words("CT_AC-rest 3.0mm") == "CT AC REST 3 0 MM"
    assert plain_words("Schwächung") == "SCHWÄCHUNG"


def archive_tables(folder: Path, *, keep: bool = False) -> tuple[pa.Table, pa.Table]:
    texts = text_policy(RULES, keep=keep)
    instances = index_archive([folder], KEYS, workers=1, texts=texts).instances
    return instances, select_series(series_table(instances), RULES)


def chosen_keys(instances: pa.Table, series: pa.Table) -> dict[str, list[str]]:
    studies = decide_studies(instances, series, RULES.digest)
    files: dict[str, list[str]] = {}
    for row in chosen_files(instances, studies).to_pylist():
        files.setdefault(row["study_key"], []).append(row["path_key"])
    return files


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_from_files_of_each_vendor(tmp_path: Path, vendor: str) -> None:
    own = VENDORS[vendor]
    paths = write_slices(tmp_path, 24, **own)
    scout = {
        "SeriesInstanceUID": "1.2.3.4.6",
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        "SeriesDescription": "Scout",
    }
    write_slices(tmp_path, 1, **(own | scout))
    score = {
        "SeriesInstanceUID": "1.2.3.4.7",
        "SeriesDescription": "SmartScore Gated",
        "ReconstructionDiameter": "250",
    }
    write_slices(tmp_path, 40, 2.5, **(own | score))
    nuclear = {
        "SeriesInstanceUID": "1.2.3.4.8",
        "Modality": "NM",
        "SOPClassUID": NM_CLASS,
        "SeriesDescription": "Stress AC",
    }
    write_slices(tmp_path, 1, **nuclear)
    instances, series = archive_tables(tmp_path)
    reasons = {
        row["SeriesInstanceUID"]: row["reason"] or row["selected"] for row in series.to_pylist()
    }
    assert reasons == {
        KEYS.pseudonym_uid("1.2.3.4.5"): True,
        KEYS.pseudonym_uid("1.2.3.4.6"): "localizer",
        KEYS.pseudonym_uid("1.2.3.4.7"): "gated_cardiac",
        KEYS.pseudonym_uid("1.2.3.4.8"): "not_ct",
    }
    chosen = chosen_keys(instances, series)
    assert {frozenset(keys) for keys in chosen.values()} == {
        frozenset(KEYS.path_key(str(path)) for path in paths)
    }


def test_series_numbers_from_files(tmp_path: Path) -> None:
    paths = write_slices(tmp_path, 24, 4.5)
    paths[3].write_bytes(paths[3].read_bytes()[:-10])
    (tmp_path / "copy").write_bytes(paths[4].read_bytes())
    # A complete copy replaces a truncated file.
    (tmp_path / "whole").write_bytes(paths[5].read_bytes())
    paths[5].write_bytes(paths[5].read_bytes()[:-10])
    instances, series = archive_tables(tmp_path)
    (row,) = series.to_pylist()
    assert (row["n_files"], row["n_slices"], row["n_truncated"], row["n_unusable"]) == (
        24,
        24,
        1,
        0,
    )
    assert row["slice_increment_mm"] == pytest.approx(4.5)
    assert row["coverage_mm"] == pytest.approx(108.0)
    assert row["axial_cosine"] == 1.0
    assert row["selected"] and "truncated_files" in row["evidence"]
    (files,) = chosen_keys(instances, series).values()
    assert len(files) == 24
    assert KEYS.path_key(str(paths[3])) in files
    assert KEYS.path_key(str(paths[5])) not in files


def test_files_without_uids_keep_their_study(tmp_path: Path) -> None:
    write_slices(tmp_path / "a", 22, SeriesInstanceUID=None, StudyInstanceUID="1.7")
    write_slices(tmp_path / "b", 22, SOPInstanceUID=None, StudyInstanceUID="1.8")
    write_slices(tmp_path / "c", 22, StudyInstanceUID="")
    _, series = archive_tables(tmp_path)
    rows = {row["study_key"]: row for row in series.to_pylist()}
    assert set(rows) == {KEYS.study_key("1.7"), KEYS.study_key("1.8")}
    assert rows[KEYS.study_key("1.7")]["SeriesInstanceUID"] is None
    assert {row["reason"] for row in rows.values()} == {"unusable_files"}
    assert set(study_reasons(series).values()) == {StudyReason.NO_CTAC_SERIES}


def test_a_stray_localizer_does_not_affect_the_series(tmp_path: Path) -> None:
    write_slices(tmp_path, 24)
    stray = ct_dataset(
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        SOPInstanceUID="0.1",
        ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"],
        KVP="70",
    )
    write_dicom(tmp_path / "stray", stray)
    instances, series = archive_tables(tmp_path)
    (row,) = series.to_pylist()
    assert row["selected"] and row["KVP"] == 120.0 and row["n_slices"] == 25
    assert [len(files) for files in chosen_keys(instances, series).values()] == [25]


def test_digest_follows_the_instances_not_the_paths(tmp_path: Path) -> None:
    first = write_slices(tmp_path / "a", 21)
    digest = archive_tables(tmp_path / "a")[1]["instances_digest"].to_pylist()
    for path in first:
        (tmp_path / "b").mkdir(exist_ok=True)
        path.rename(tmp_path / "b" / f"other-{path.name}")
    assert archive_tables(tmp_path / "b")[1]["instances_digest"].to_pylist() == digest
    next((tmp_path / "b").iterdir()).unlink()
    assert archive_tables(tmp_path / "b")[1]["instances_digest"].to_pylist() != digest


def test_the_smartscore_series_of_pydicom_is_not_selected() -> None:
    folder = Path(get_testdata_files("CT_small.dcm")[0]).parent / "dicomdirtests"
    _, series = archive_tables(folder)
    rows = series.to_pylist()
    gated = [row for row in rows if "SmartScore" in (row["SeriesDescription"] or "")]
    assert [row["reason"] for row in gated] == ["gated_cardiac"]
    assert all((row["reason"] is None) == row["selected"] for row in rows)


def test_real_series(shared_data: Path) -> None:
    _, series = archive_tables(shared_data, keep=True)
    rows = series.to_pylist()
    # The kept words do not affect the selection.
    _, reduced = archive_tables(shared_data)
    decisions = ["study_key", "SeriesInstanceUID", "selected", "reason", "evidence", "ctac_role"]
    assert reduced.select(decisions).equals(series.select(decisions))
    reasons = {row["SeriesDescription"]: row["reason"] for row in rows if row["Modality"] == "CT"}
    assert reasons["STEREOTAXIS"] == "field_of_view_too_small"
    assert reasons["Exam Summary"] == "not_ct_image"
    # Its header has no contrast agent: only the pixels show the contrast medium.
    assert reasons["CHEST  3.0  B40f"] is None
    selected = [row["study_key"] for row in rows if row["selected"]]
    assert len(selected) == len(set(selected))
