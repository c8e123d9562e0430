"""Linkage: planted truth in three dialects, and single rules by hand-made rows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cac_core.cohort.link import check_rules, linkage_digest
from cac_core.cohort.mapping import load_mapping
from cac_core.cohort.outcomes import OutcomeDefinition, load_outcomes
from cac_core.cohort.overlap import overlap
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import DIALECTS, write_extracts
from cac_core.phantom.registry.records import Registry, Visit, make_registry, registry_scores
from cac_core.phantom.registry.scored_archive import scored_archive
from schemas.linkage import FLOW
from schemas.linked import LINKED
from schemas.score import CERTAINTY_COLUMNS
from tests.builders.registries import KEYRING, MAPPING, link_extracts, studies, write_site

SCAN = dt.date(2015, 6, 1)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry(400, 3)


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_event_date_and_exclusion_equals_the_planted_truth(
    dialect: str, registry: Registry, tmp_path: Path
) -> None:
    scores, accessions = registry_scores(registry, KEYRING)
    results = []
    for seed in (1, 2):  # the order of the rows, which must not matter
        mapping = write_extracts(registry, dialect, tmp_path / f"{seed}", seed)
        done, parts = link_extracts(mapping, tmp_path / f"w{seed}", scores, accessions)
        results.append([_as_parquet(t) for t in (done.linked, done.events, done.flow)])
        assert {part.extract.source.table for part in parts} >= {"clinical", "encounters"}
    assert results[0] == results[1]

    found = {row["patient_key"]: row for row in done.flow.to_pylist()}
    linked = {row["patient_key"]: row for row in done.linked.to_pylist()}
    expected = {KEYRING.patient_key(row["patient_id"]): row for row in registry.truth}
    assert expected.keys() <= found.keys()
    # Beside them are only scans under a mistyped number, for which nobody is on file.
    assert {found[k]["step"] for k in found.keys() - expected.keys()} <= {"no_clinical_record"}
    included = [key for key, row in expected.items() if row["step"] == "included"]
    assert linked.keys() == set(included)
    assert len(included) >= 400
    for key, row in expected.items():
        assert found[key]["step"] == row["step"]
    happened = {row["patient_key"] for row in done.events.to_pylist()}
    assert happened == {key for key in included if linked[key]["mace_event"]}
    for key in included:
        truth, row = expected[key], linked[key]
        assert row["study_key"] == KEYRING.study_key(truth["study_instance_uid"])
        for name, value in truth.items():
            if name in row:
                tolerance = 0.02 if name in ("age_years", "bmi_kg_m2") else 1e-9
                exact = not isinstance(value, float)
                assert row[name] == (value if exact else pytest.approx(value, abs=tolerance)), name


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_planted_faults_are_in_quarantine_and_named(
    dialect: str, registry: Registry, tmp_path: Path
) -> None:
    mapping = write_extracts(registry, dialect, tmp_path, 1)
    scores, accessions = registry_scores(registry, KEYRING)
    done, parts = link_extracts(mapping, tmp_path / "w", scores, accessions)
    in_parts = [part.faults for part in parts if part.extract.source.table == "encounters"]
    reasons = {reason for faults in in_parts for _, reason in faults}
    late = set(done.quarantine["reason"].to_pylist())
    assert registry.n_faulty_stays > 10
    assert reasons >= {"unparsed_date", "date_order", "unmapped_code", "after_coverage"}
    assert late >= {"after_death", "conflicting_rows"}
    if dialect == "abstracts":
        assert "unreadable_line" in reasons  # the lines cut short


def _one(tmp_path: Path, outcomes: OutcomeDefinition | None = None, **tables: list[str]) -> Any:
    """The flow step and the row of a patient `P1` who was scanned on 2015-06-01."""
    tables.setdefault("clinical", ["P1,2015-06-01,,60,M,1,0"])
    path = write_site(tmp_path, **tables)
    done, _ = link_extracts(path, tmp_path / "w", studies(("P1", SCAN)), outcomes=outcomes)
    flow = {row["patient_key"]: row for row in done.flow.to_pylist()}
    rows = done.linked.to_pylist()
    return flow[KEYRING.patient_key("p1")]["step"], rows[0] if rows else None


def test_a_person_without_records_is_followed_to_the_end_of_coverage(tmp_path: Path) -> None:
    step, row = _one(tmp_path)
    assert step == "included"
    assert row["mace_event"] == 0
    assert row["mace_days"] == (dt.date(2019, 12, 31) - SCAN).days == 1674


def test_emigration_ends_follow_up_and_events_after_it_do_not_count(tmp_path: Path) -> None:
    _, row = _one(
        tmp_path,
        follow_up=["P1,,2015-07-01"],
        encounters=["P1,2015-08-01,2015-08-03,inpatient,I21.0,M,,"],
    )
    assert (row["mace_event"], row["mace_days"]) == (0, 30)


@pytest.mark.parametrize(
    ("record", "outcome", "event"),
    [
        ("P1,2015-06-11,2015-06-12,inpatient,I21.4,M,,", "death_mi", 1),
        ("P1,2015-06-11,2015-06-12,inpatient,I22.0,2,,", "death_mi", 1),
        ("P1,2015-06-11,2015-06-12,inpatient,I21.4,3,,", "mace", 0),  # not in this stay
        ("P1,2015-06-11,2015-06-12,emergency,I21.4,M,,", "mace", 0),  # no admission
        ("P1,2015-06-11,2015-06-12,inpatient,I20.0,M,,", "mace", 1),
        ("P1,2015-06-11,2015-06-12,inpatient,I20.0,M,,", "death_mi", 0),
        ("P1,2015-06-11,2015-06-12,inpatient,I20.0,1,,", "mace", 0),  # beside another disease
        ("P1,2015-06-11,2015-06-12,inpatient,I25.1,M,1.IJ.50.GQ,2015-06-11", "mace", 1),
        ("P1,2015-06-11,2015-06-12,ambulatory,,,02703DZ,2015-06-11", "mace", 1),
        ("P1,2015-06-11,2015-06-12,inpatient,,,K40.1,2015-06-11", "mace", 1),
        ("P1,2015-06-11,2015-06-12,inpatient,,,K60.1,2015-06-11", "mace", 0),  # a pacemaker
    ],
)
def test_which_records_are_events(tmp_path: Path, record: str, outcome: str, event: int) -> None:
    _, row = _one(tmp_path, encounters=[record])
    assert row[f"{outcome}_event"] == event
    if event:
        assert row[f"{outcome}_days"] == 10


def test_a_death_is_an_event_on_its_day_and_ends_follow_up(tmp_path: Path) -> None:
    _, row = _one(
        tmp_path,
        deaths=["P1,2015-07-01"],
        encounters=["P1,2015-08-01,2015-08-03,inpatient,I21.0,M,,"],
    )
    assert (row["death_event"], row["death_days"], row["death_mi_days"]) == (1, 30, 30)


def test_a_record_after_death_is_in_quarantine(tmp_path: Path) -> None:
    path = write_site(
        tmp_path,
        clinical=["P1,2015-06-01,,60,M,1,0"],
        deaths=["P1,2015-07-01"],
        encounters=["P1,2015-08-01,2015-08-03,inpatient,I21.0,M,,"],
    )
    done, _ = link_extracts(path, tmp_path / "w", studies(("P1", SCAN)))
    (row,) = done.quarantine.to_pylist()
    assert (row["reason"], row["source_file"], row["source_line"]) == (
        "after_death",
        "encounters/1",
        2,
    )


@pytest.mark.parametrize(
    ("tables", "step"),
    [
        ({"clinical": ["P1,2015-06-01,,60,M,1,1"]}, "known_cad"),
        (
            {"encounters": ["P1,2010-01-01,2010-01-05,inpatient,I21.0,M,,"]},
            "known_cad",
        ),
        ({"encounters": ["P1,2015-06-01,2015-06-02,inpatient,,,K40.1,2015-06-01"]}, "known_cad"),
        ({"clinical": ["P1,2015-06-01,,60,,1,0"]}, "missing_covariate"),
        ({"clinical": ["P1,2015-06-01,,60,M,,0"]}, "included"),  # kept as missing
        ({"clinical": ["P2,2015-06-01,,60,M,1,0"]}, "no_clinical_record"),
        ({"deaths": ["P1,2015-07-01", "P1,2015-09-01"]}, "conflicting_death"),
        ({"follow_up": ["P1,2015-05-30,"]}, "no_follow_up"),
    ],
)
def test_steps_at_which_patients_leave_the_cohort(
    tmp_path: Path, tables: dict[str, list[str]], step: str
) -> None:
    assert _one(tmp_path, **tables)[0] == step


def test_the_first_eligible_scan_counts(tmp_path: Path) -> None:
    path = write_site(
        tmp_path,
        clinical=["P1,2014-01-01,,59,,0,0", "P1,2015-06-01,,60,M,0,0", "P1,2016-06-01,,61,M,0,0"],
    )
    scans = [("P1", dt.date(2014, 1, 1)), ("P1", SCAN), ("P1", dt.date(2016, 6, 1))]
    done, _ = link_extracts(path, tmp_path / "w", studies(*scans))
    assert done.linked["study_date"].to_pylist() == [SCAN]  # the first lacks the sex
    assert done.flow["n_studies"].to_pylist() == [3]


def test_the_accession_number_matches_without_the_patient_number(tmp_path: Path) -> None:
    path = write_site(tmp_path, clinical=["P1,2015-06-01, a77 ,60,M,1,0"])
    scans = studies(("mistyped", SCAN))
    accessions = pa.table(
        {"study_key": scans["study_key"], "accession_key": [KEYRING.accession_key("A77")]}
    )
    done, _ = link_extracts(path, tmp_path / "w", scans, accessions)
    assert done.linked["patient_key"].to_pylist() == [KEYRING.patient_key("P1")]
    assert done.matches["n_by_accession"].to_pylist() == [1]


def test_contradictory_matches_are_rejected(tmp_path: Path) -> None:
    path = write_site(tmp_path, clinical=["P1,2015-06-01,A2,60,M,1,0"])
    scans = studies(("P1", SCAN), ("P2", SCAN))
    keys = [KEYRING.accession_key(number) for number in ("A1", "A2")]
    accessions = pa.table({"study_key": scans["study_key"], "accession_key": keys})
    done, _ = link_extracts(path, tmp_path / "w", scans, accessions)
    assert done.linked.num_rows == 0
    assert done.quarantine["reason"].to_pylist() == ["conflicting_match"]


EARLY = '{{ component = "revascularisation", days = 90, rule = "{rule}" }}'


@pytest.mark.parametrize(
    ("rule", "event", "days"),
    [("exclude", None, None), ("blank", 1, 200), ("censor", 0, 30)],
)
def test_early_revascularisation_three_ways(
    tmp_path: Path, rule: str, event: int | None, days: int | None
) -> None:
    shipped = load_outcomes().model_dump(mode="json")
    shipped["outcome"]["mace_no_early_revascularisation"]["early"]["rule"] = rule
    _, row = _one(
        tmp_path,
        OutcomeDefinition.model_validate(shipped),
        encounters=[
            "P1,2015-07-01,2015-07-02,inpatient,,,K49.1,2015-07-01",
            "P1,2015-12-18,2015-12-20,inpatient,I21.0,M,,",
        ],
    )
    assert (row["mace_event"], row["mace_days"]) == (1, 30)
    name = "mace_no_early_revascularisation"
    assert (row[f"{name}_event"], row[f"{name}_days"]) == (event, days)


def test_shifted_dates_hide_the_day_and_keep_the_intervals(tmp_path: Path) -> None:
    mapping = MAPPING.replace("[[source]]", "[rules]\nshift_dates = true\n[[source]]", 1)
    lines = {"clinical": ["P1,2015-06-01,,60,M,1,0"], "deaths": ["P1,2015-07-01"]}
    plain, _ = link_extracts(
        write_site(tmp_path / "a", **lines), tmp_path / "aw", studies(("P1", SCAN))
    )
    shifted, _ = link_extracts(
        write_site(tmp_path / "b", mapping, **lines), tmp_path / "bw", studies(("P1", SCAN))
    )
    (before,), (after,) = plain.linked.to_pylist(), shifted.linked.to_pylist()
    moved = after.pop("study_date") - before.pop("study_date")
    assert moved.days != 0 and abs(moved.days) <= 182
    assert before == after


def test_without_included_patients_the_tables_are_empty(tmp_path: Path) -> None:
    done, _ = link_extracts(write_site(tmp_path), tmp_path / "w", studies())
    assert done.linked.equals(LINKED.empty())
    assert done.flow.equals(FLOW.empty())


def test_the_digest_covers_everything_the_tables_depend_on(tmp_path: Path) -> None:
    lines = {"clinical": ["P1,2015-06-01,,60,M,1,0"]}
    path = write_site(tmp_path, **lines)
    scores = studies(("P1", SCAN))
    _, parts = link_extracts(path, tmp_path / "w", scores)
    nothing = pa.table({n: pa.array([], pa.string()) for n in ("study_key", "accession_key")})
    mapping, outcomes = load_mapping(path), load_outcomes()
    base = linkage_digest(parts, scores, nothing, mapping, outcomes, KEYRING)
    assert base == linkage_digest(parts[::-1], scores, nothing, mapping, outcomes, KEYRING)
    changed = [
        linkage_digest(parts[1:], scores, nothing, mapping, outcomes, KEYRING),
        linkage_digest(parts, studies(("P2", SCAN)), nothing, mapping, outcomes, KEYRING),
        linkage_digest(parts, scores, nothing, mapping, outcomes, Keyring(b"another")),
        linkage_digest(
            parts,
            scores,
            nothing,
            mapping.model_copy(
                update={"rules": mapping.rules.model_copy(update={"window_days": 1})}
            ),
            outcomes,
            KEYRING,
        ),
    ]
    assert len({base, *changed}) == 5


def test_a_required_covariate_must_exist(tmp_path: Path) -> None:
    mapping = MAPPING.replace("[[source]]", '[rules]\nrequired = ["shoe"]\n[[source]]', 1)
    rules = load_mapping(write_site(tmp_path, mapping)).rules
    with pytest.raises(
        UsageError, match=r"require shoe, which is not a covariate\. Covariates are age_"
    ):
        check_rules(rules)


def test_the_shipped_definition_is_the_papers(tmp_path: Path) -> None:
    reported = json.dumps(load_outcomes().model_dump(mode="json"))
    for code in ("I21", "I22", "I200", "1IJ50", "1IJ76", "0270", "K40"):
        assert f'"{code}"' in reported


@pytest.mark.parametrize(
    ("admitted", "days"), [("2015-06-12", 9), ("2015-06-13", 9), ("2015-06-14", 13)]
)
def test_a_transfer_within_a_day_belongs_to_the_first_stay(
    admitted: str, days: int, tmp_path: Path
) -> None:
    """Chest pain, discharged on 12 June; the infarction is named where the patient went next."""
    _, row = _one(
        tmp_path,
        encounters=[
            "P1,2015-06-10,2015-06-12,inpatient,R07.4,M,,",
            f"P1,{admitted},2015-06-20,inpatient,I21.0,M,,",
        ],
    )
    assert (row["death_mi_event"], row["death_mi_days"]) == (1, days)


def test_a_record_on_the_day_of_the_scan_is_not_an_event(tmp_path: Path) -> None:
    angina = "P1,2015-06-01,2015-06-02,inpatient,I20.0,M,,"
    path = write_site(tmp_path, clinical=["P1,2015-06-01,,60,M,1,0"], encounters=[angina])
    done, _ = link_extracts(path, tmp_path / "w", studies(("P1", SCAN)))
    assert done.linked["mace_event"].to_pylist() == [0]
    assert done.events.num_rows == 0


def test_a_registry_of_an_archive_agrees_with_its_headers(tmp_path: Path) -> None:
    """Sex and year of birth as the index found them set nobody aside."""
    born = [dt.date(1940 + n, 1 + n % 12, 15) for n in range(30)]
    archive = [
        (
            Visit(f"P{n}", f"P{n}", f"A{n}", f"2.25.{n + 1}", dt.date(2019, 6, 1 + n % 28),
                  sex="FM"[n % 2], birth_date=born[n]),
            float(n),
        )
        for n in range(30)
    ]  # fmt: skip
    registry = make_registry(30, 4, archive=archive)
    scores, accessions = registry_scores(registry, KEYRING)
    visits = {KEYRING.study_key(v.study_instance_uid): v for v in registry.visits}
    found = [visits[key] for key in accessions["study_key"].to_pylist()]
    accessions = accessions.append_column("PatientSex", pa.array([v.sex for v in found]))
    accessions = accessions.append_column(
        "patient_birth_year", pa.array([v.birth_date.year for v in found if v.birth_date])
    )
    mapping = write_extracts(registry, "flat", tmp_path / "x", 1)
    done, _ = link_extracts(mapping, tmp_path / "w", scores, accessions)
    steps = {row["patient_key"]: row["step"] for row in done.flow.to_pylist()}
    assert steps == {KEYRING.patient_key(r["patient_id"]): r["step"] for r in registry.truth}
    assert not {"sex_differs", "birth_year_differs"} & set(done.quarantine["reason"].to_pylist())


@pytest.mark.slow
def test_the_path_of_the_warehouse_is_taken_literally(tmp_path: Path) -> None:
    registry = make_registry(40, 5)
    scores, accessions = registry_scores(registry, KEYRING)
    mapping = write_extracts(registry, "flat", tmp_path / "extracts", 1)
    plain, _ = link_extracts(mapping, tmp_path / "plain", scores, accessions)
    # A neighbour that the first name would fit as a pattern.
    link_extracts(mapping, tmp_path / "wh 1x", scores, accessions)
    for name in ("wh [1]*", "patient_id=A", "a'b?c", "[2020] x\\y", "*\\[x]'"):
        odd, parts = link_extracts(mapping, tmp_path / name, scores, accessions)
        assert _as_parquet(odd.linked) == _as_parquet(plain.linked), name
        found = overlap(parts, scores, odd.matches, 3)
        assert found == overlap(parts, scores, plain.matches, 3), name


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_a_registry_without_a_death_has_a_table_without_rows(dialect: str, tmp_path: Path) -> None:
    registry = dataclasses.replace(make_registry(12, 5), deaths=(), follow_up=())
    mapping = write_extracts(registry, dialect, tmp_path / "extracts", 1)
    done, _ = link_extracts(mapping, tmp_path / "wh", *registry_scores(registry, KEYRING))
    assert done.linked.num_rows >= 12
    assert "death" not in done.events["component"].to_pylist()


@pytest.mark.parametrize(
    ("rows", "step"),
    [
        # An unreadable sex beside a readable one is a gap, no contradiction.
        (["P1,2015-06-01,,60,M,1,0", "P1,2015-06-01,,60,?,1,0"], "included"),
        (["P1,2015-06-01,,,M,1,0", "P1,2015-06-01,,60,,1,0"], "included"),
        (["P1,2015-06-01,,60,M,1,0", "P1,2015-06-01,,61,M,1,0"], "no_clinical_record"),
        (["P1,2015-06-01,,60,,1,0", "P1,2015-06-01,,,F,0,0"], "no_clinical_record"),
    ],
)
def test_rows_without_contradiction_are_merged(rows: list[str], step: str, tmp_path: Path) -> None:
    for number, ordered in enumerate((rows, rows[::-1])):
        found, row = _one(tmp_path / str(number), clinical=ordered)
        assert found == step
        if step == "included":
            assert (row["sex"], row["age_years"]) == ("M", 60)


def test_how_sure_a_score_is_is_linked_with_it(tmp_path: Path) -> None:
    registry = make_registry(40, 5, dirt=False)
    archive = scored_archive(registry, KEYRING, 5)
    mapping = write_extracts(registry, "abstracts", tmp_path / "extracts", 1)
    numbers = archive.instances.select(["study_key", "accession_key"])
    done, _ = link_extracts(mapping, tmp_path / "wh", archive.scores, numbers)
    scores = {row["study_key"]: row for row in archive.scores.to_pylist()}
    assert done.linked.num_rows == 40
    for row in done.linked.to_pylist():
        score = scores[row["study_key"]]
        assert [row[name] for name in CERTAINTY_COLUMNS] == [
            score[name] for name in CERTAINTY_COLUMNS
        ]
