"""`cac link` as an analyst uses it: tables, ledger, faults, privacy."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cac_core.cohort.scores import study_identifiers
from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import Registry, Visit, make_registry
from schemas.instance import INSTANCES
from schemas.linkage import FLOW, LINKAGES, MATCHES, QUARANTINE
from schemas.linked import LINKED
from schemas.score import SCORES
from tests.builders.german import write_german
from tests.builders.registries import fill_warehouse, write_site
from tests.flows.conftest import SECRET, Cac, Scored

KEYS = Keyring(SECRET.encode())


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry(150, 8)


@pytest.fixture
def site(registry: Registry, tmp_path: Path) -> tuple[Path, Path]:
    """Warehouse and mapping of a site that can be linked."""
    fill_warehouse(tmp_path / "wh", registry, KEYS)
    return tmp_path / "wh", write_extracts(registry, "abstracts", tmp_path / "extracts", 1)


def _stamps(folder: Path) -> dict[str, int]:
    """Modification times of all tables."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*.parquet")}


def test_a_linkage_and_its_reruns(cac: Cac, site: tuple[Path, Path], registry: Registry) -> None:
    warehouse, mapping = site
    first = cac("link", "-w", warehouse, "--mapping", mapping, "--json")
    assert first.code == 0, first.err
    steps = Counter(row["step"] for row in registry.truth)
    reported = {row["step"]: row["patients"] for row in first.json["flow"]}
    # Scans under mistyped numbers are people nobody knows.
    assert {s: n for s, n in reported.items() if s != "no_clinical_record"} == {
        s: steps[s] for s in reported if s != "no_clinical_record"
    }
    mace = sum(row.get("mace_event") or 0 for row in registry.truth)
    assert first.json["outcomes"][0] == {
        "outcome": "mace",
        "events": mace,
        "patients_left_out": 0,
    }
    store = Warehouse(warehouse)
    assert store.read(LINKED).num_rows == steps["included"] == first.json["included"]
    assert store.read(FLOW).num_rows == first.json["patients"]
    assert store.read(MATCHES).num_rows == len(first.json["matches"])
    assert store.read(QUARANTINE).num_rows > 0
    (run,) = store.read(LINKAGES).to_pylist()
    assert (run["run_id"], run["extracts_read"]) == (first.json["run_id"], run["extracts"])
    assert not (warehouse / "_staging" / "linkage").exists()

    exported = cac(
        "export", "-w", warehouse, "--out", warehouse.parent / "out", "--shape", "adtte",
        "--shape", "omop", "--format", "xport", "--json",
    )  # fmt: skip
    assert len(exported.json["files"]) == 8
    assert all(Path(item["file"]).exists() for item in exported.json["files"])

    before = _stamps(warehouse)
    again = cac("link", "-w", warehouse, "--mapping", mapping, "--json")
    assert again.json["outcome"] == "unchanged"
    assert all(extract["read_before"] for extract in again.json["extracts"])
    assert [again.json[n] for n in ("flow", "outcomes", "matches")] == [
        first.json[n] for n in ("flow", "outcomes", "matches")
    ]
    assert _stamps(warehouse) == before

    deaths = mapping.parent / "vital_statistics.csv"
    deaths.write_text(deaths.read_text().splitlines()[0] + "\n", encoding="utf-8")
    changed = cac("link", "-w", warehouse, "--mapping", mapping, "--json")
    assert changed.json["outcome"] == "linked"
    read = [e["file"] for e in changed.json["extracts"] if not e["read_before"]]
    assert read == ["vital_statistics.csv"]
    kept = {n: t for n, t in _stamps(warehouse).items() if n.startswith("registry/")}
    assert sum(before.get(name) == stamp for name, stamp in kept.items()) == len(kept) - 1
    assert {row["outcome"]: row["events"] for row in changed.json["outcomes"]}["death"] == 0


@pytest.mark.slow
def test_too_many_unusable_rows_stop_the_run_and_leave_the_tables(
    cac: Cac, site: tuple[Path, Path]
) -> None:
    warehouse, mapping = site
    assert cac("link", "-w", warehouse, "--mapping", mapping, "-q").code == 0
    before = {p: p.read_bytes() for p in warehouse.rglob("*.parquet")}
    text = mapping.read_text(encoding="utf-8")
    mapping.write_text(text.replace("%d%b%Y", "%d.%m.%Y"), encoding="utf-8")
    stopped = cac("link", "-w", warehouse, "--mapping", mapping, "-q")
    assert stopped.code == 1
    assert re.search(r"Source \w+: \d+ of \d+ lines are unusable.*limit of 15%", stopped.err)
    assert "unparsed_date in" in stopped.err and "correct the mapping" in stopped.err
    assert {p: p.read_bytes() for p in before} == before
    waiting = {p for p in warehouse.rglob("*.parquet") if p not in before}
    assert waiting and all("_staging" in p.parts for p in waiting)
    mapping.write_text(text, encoding="utf-8")
    assert cac("link", "-w", warehouse, "--mapping", mapping, "--json").json["outcome"] == (
        "unchanged"
    )


@pytest.mark.slow
def test_too_few_matches_stop_the_run_and_leave_the_tables(cac: Cac, tmp_path: Path) -> None:
    """Another secret; then identifiers that a spreadsheet rewrote; then a limit that allows it."""
    numbers = [f"{n:08d}" for n in range(1, 31)]
    warehouse, registry = tmp_path / "wh", make_registry(30, 2)
    registry.visits[:] = [
        Visit(i, i, f"A{i}", f"2.25.{int(i)}", dt.date(2015, 6, 1)) for i in numbers
    ]
    registry.agatston.update({f"2.25.{int(i)}": 5.0 for i in numbers})
    fill_warehouse(warehouse, registry, KEYS)

    def extract(identifiers: list[str]) -> Path:
        lines = [f"{i},2015-06-01,,60,M,1,0" for i in identifiers]
        return write_site(tmp_path / "x", clinical=lines)

    mapping = extract(numbers)
    assert cac("link", "-w", warehouse, "--mapping", mapping, "--json").json["included"] == 30
    before = {p: p.read_bytes() for p in warehouse.rglob("*.parquet")}

    def stopped(reported: str) -> None:
        outcome = cac("link", "-w", warehouse, "--mapping", mapping, "-q")
        assert (outcome.code, len(outcome.err.strip().splitlines())) == (1, 1), outcome.err
        assert "0 of 30 clinical rows match a study" in outcome.err
        assert reported in outcome.err and "The published tables are unchanged" in outcome.err
        assert {p: p.read_bytes() for p in before} == before

    other = cac(
        "link", "-w", warehouse, "--mapping", mapping, "-q", CAC_LINKAGE_KEY="another site's secret"
    )
    assert (other.code, len(other.err.strip().splitlines())) == (2, 1), other.err
    assert "not the one that the warehouse" in other.err
    assert {p: p.read_bytes() for p in before} == before
    mapping = extract([i.lstrip("0") for i in numbers])
    stopped("30 of 30 unknown patient identifiers are in the archive with leading zeros")
    mapping = extract([f"1.{i}E+11" for i in numbers])
    stopped("30 of 30 unknown patient identifiers are written like 1.2E+11")

    mapping = extract(numbers)
    store, instances = Warehouse(warehouse), Warehouse(warehouse).read(INSTANCES)
    filled = [row | {"PatientSex": "F"} for row in instances.to_pylist()]
    store.replace(INSTANCES, INSTANCES.from_rows(filled))
    before = {p: p.read_bytes() for p in before if p.exists()}
    before |= {p: p.read_bytes() for p in (warehouse / "instances").rglob("*.parquet")}
    stopped(
        "less than the limit of 5%: 30 rows are in quarantine as sex_differs. The published tables"
    )
    store.replace(INSTANCES, instances)

    mapping = extract([f"1.{i}E+11" for i in numbers])
    text = mapping.read_text(encoding="utf-8")
    mapping.write_text(
        text.replace("[[source]]", "[rules]\nmin_match_rate = 0\n[[source]]", 1), encoding="utf-8"
    )
    for outcome in ("linked", "unchanged"):
        allowed = cac("link", "-w", warehouse, "--mapping", mapping, "--json", "-q")
        assert (allowed.code, allowed.json["outcome"]) == (3, outcome)
        assert allowed.json["included"] == 0
        assert any("written like 1.2E+11" in text for text in allowed.json["warnings"])
        assert allowed.err.startswith("cac: The cohort is empty: no patient of the registry match")
        assert "written like 1.2E+11" in allowed.json["empty_because"][1]


def test_a_scan_without_a_date_does_not_stop_the_rest(cac: Cac, tmp_path: Path) -> None:
    warehouse, registry = tmp_path / "wh", make_registry(30, 2)
    store = fill_warehouse(warehouse, registry, KEYS)
    scores = store.read(SCORES, "test-1").to_pylist()
    clean = [row for row in registry.truth if row["step"] == "included"]
    one = KEYS.patient_key(clean[0]["patient_id"])
    rows = [row | ({"study_date": None} if row["patient_key"] == one else {}) for row in scores]
    store.replace(SCORES, SCORES.from_rows(rows), "test-1")
    mapping = write_extracts(registry, "flat", tmp_path / "x", 1)
    outcome = cac("link", "-w", warehouse, "--mapping", mapping, "--json", "-q")
    assert (outcome.code, outcome.err) == (0, "")
    reported = {row["step"]: row["patients"] for row in outcome.json["flow"]}
    assert (reported["no_study_date"], reported["included"]) == (1, len(clean) - 1)


def test_identifiers_of_a_study_come_from_its_headers() -> None:
    """Every accession number once, with sex and year of birth."""
    rows = [
        {"study_key": KEYS.study_key("1"), "accession_key": key, "PatientSex": "F"}
        for key in (KEYS.accession_key("a"), KEYS.accession_key("b"), KEYS.accession_key("a"), None)
    ] + [{"patient_birth_year": 1950}]
    files = [
        {"path_key": KEYS.path_key(str(n)), "size_bytes": 1, "mtime_ns": 1} | row
        for n, row in enumerate(rows)
    ]
    found = study_identifiers(INSTANCES.from_rows(files)).to_pylist()
    assert {row["accession_key"] for row in found} == {row["accession_key"] for row in rows[:4]}
    assert len(found) == 3 and {row["PatientSex"] for row in found} == {"F"}


def test_a_dry_run_writes_nothing(cac: Cac, site: tuple[Path, Path]) -> None:
    warehouse, mapping = site
    before = _stamps(warehouse)
    reported = cac("link", "-w", warehouse, "--mapping", mapping, "--dry-run", "--json").json
    assert reported["model"] == "test-1"
    assert {e["table"] for e in reported["extracts"]} >= {"clinical", "encounters", "deaths"}
    assert _stamps(warehouse) == before
    assert {p.name for p in warehouse.iterdir()} <= {"scores", "instances", "_staging"}


@pytest.mark.slow
def test_an_analyst_links_the_files_of_a_german_hospital(
    cac: Cac, registry: Registry, tmp_path: Path
) -> None:
    """Draft, one edit, dry run, link, quarantine; a wrong date format is found by the dry run."""
    warehouse, draft = tmp_path / "wh", tmp_path / "site.toml"
    fill_warehouse(warehouse, registry, KEYS)
    write_german(registry, tmp_path / "in")
    files = [tmp_path / "in" / f"{name}.csv" for name in ("patienten", "faelle", "vitalstatus")]
    proposed = cac("link", "--propose", *files, "--out", draft)
    assert proposed.code == 0, proposed.err
    text = draft.read_text(encoding="utf-8").replace("# end = YYYY-MM-DD", "end = 2019-12-31")
    draft.write_text(text, encoding="utf-8")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace("%d.%m.%Y", "%m/%d/%Y"), encoding="utf-8")
    stopped = cac("link", "-w", warehouse, "--mapping", wrong, "--dry-run", "--json")
    assert stopped.code == 3 and "lines are unusable" in stopped.json["stops"][0]
    (found,) = [s for s in stopped.json["set_aside"] if s["file"] == "clinical/1"
                and s["column"] == "study_date"]  # fmt: skip
    assert found["rows"] == len(registry.clinical) and '"%d.%m.%Y"' in found["change"]
    dry = cac("link", "-w", warehouse, "--mapping", draft, "--dry-run", "--json")
    assert dry.code == 0 and not dry.json["stops"] and not dry.json["warnings"]
    assert cac("quarantine", "-w", warehouse).code == 2  # nothing is linked yet
    linked = cac("link", "-w", warehouse, "--mapping", draft, "--json").json
    truth = [row for row in registry.truth if row["step"] == "included"]
    assert linked["included"] == len(truth)
    events = {o["outcome"]: o["events"] for o in linked["outcomes"]}
    assert events["mace"] == sum(row["mace_event"] for row in truth)
    shown = cac("quarantine", "-w", warehouse, "--json").json
    assert shown["published"] and shown["rows"] >= sum(e["unusable"] for e in linked["extracts"])
    reasons = {(s["file"], s["column"], s["reason"]) for s in shown["set_aside"]}
    assert ("encounters/1", "admit_date", "unparsed_date") in reasons
    # Rows that only the linkage itself sets aside are shown too.
    assert {"conflicting_rows", "after_death"} & {reason for _, _, reason in reasons}


def test_columns_that_several_files_lack_are_named_at_once(
    cac: Cac, site: tuple[Path, Path]
) -> None:
    warehouse, mapping = site
    text = mapping.read_text(encoding="utf-8").replace('"DEATHDATE"', '"DIED"')
    mapping.write_text(text.replace('"COVEREDTO"', '"UNTIL"'), encoding="utf-8")
    outcome = cac("link", "-w", warehouse, "--mapping", mapping)
    assert outcome.code == 2
    assert "has no column DIED" in outcome.err and "has no column UNTIL" in outcome.err


def test_small_counts_are_hidden_on_request(cac: Cac, site: tuple[Path, Path]) -> None:
    warehouse, mapping = site
    reported = cac("link", "-w", warehouse, "--mapping", mapping, "--suppress", "--json").json
    counts = [row["patients"] for row in reported["flow"]]
    assert "<5" in counts
    assert not any(isinstance(n, int) and 0 < n < 5 for n in counts)
    printed = cac("link", "-w", warehouse, "--mapping", mapping, "--suppress", "-q").out
    assert "Cohort flow" in printed and "<5" in printed


@pytest.mark.slow
def test_an_extract_older_than_the_scores_is_reported(cac: Cac, site: tuple[Path, Path]) -> None:
    warehouse, mapping = site
    text = mapping.read_text(encoding="utf-8").replace("2019-12-31", "2030-12-31")
    mapping.write_text(text, encoding="utf-8")
    reported = cac("link", "-w", warehouse, "--mapping", mapping, "--json").json
    assert any("newest record of source" in w and "events after the extract" in w
               for w in reported["warnings"])  # fmt: skip
    mapping.write_text(text.replace("2030-12-31", "2016-06-30"), encoding="utf-8")
    limits = mapping.read_text(encoding="utf-8").replace(
        "quarantine_limit = 0.15", "quarantine_limit = 1.0"
    )
    mapping.write_text(limits, encoding="utf-8")
    reported = cac("link", "-w", warehouse, "--mapping", mapping, "--json").json
    assert any("newer than the registry's coverage end" in w for w in reported["warnings"])


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "reported"),
    [
        ((), {}, 2, "cac link --propose"),
        (("--mapping", "none.toml"), {}, 2, "none.toml cannot be read"),
        (("--model", "other"), {}, 2, "Name one with --model: test-1"),
        ((), {"CAC_LINKAGE_KEY": None}, 2, "No linkage secret"),
        (("--outcomes", "none.toml"), {}, 2, "outcome definition none.toml cannot be read"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    arguments: tuple[str, ...],
    changes: dict[str, str | None],
    code: int,
    reported: str,
    cac: Cac,
    site: tuple[Path, Path],
) -> None:
    warehouse, mapping = site
    given = () if reported.startswith("cac link") else ("--mapping", mapping)
    outcome = cac("link", "-w", warehouse, *given, *arguments, **changes)
    assert (outcome.code, reported in outcome.err) == (code, True), outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_warehouse_without_scores_is_reported(cac: Cac, tmp_path: Path) -> None:
    outcome = cac("link", "-w", tmp_path / "wh", "--mapping", write_site(tmp_path))
    assert (outcome.code, "holds no scores" in outcome.err) == (1, True)
    assert not (tmp_path / "wh").exists()


def test_the_settings_file_names_mapping_and_warehouse(cac: Cac, site: tuple[Path, Path]) -> None:
    warehouse, _ = site
    config = warehouse.parent / "cac.toml"
    config.write_text(
        f'warehouse = "{warehouse}"\n[linkage]\nmapping = "extracts/mapping.toml"\nthreads = 1\n',
        encoding="utf-8",
    )
    assert cac("link", "-c", config, "--json").json["included"] >= 150


def _every_text(folder: Path) -> str:
    """All that can be read under a folder: tables decoded, databases and files as they are."""
    texts = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        texts += [path.name, path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            texts += [json.dumps(table.to_pylist(), default=str, ensure_ascii=False)]
        elif path.suffix == ".db":
            with sqlite3.connect(path) as database:
                texts += list(database.iterdump())
            database.close()
    return "\n".join(texts)


def test_no_identifier_leaves_the_canonical_tables(
    cac: Cac, environment: dict[str, str], tmp_path: Path
) -> None:
    """Identifiers in every field that holds text; some rows can be used, others cannot."""
    mapping = """
site = "privacy"
[coverage]
end = 2019-12-31
[rules]
quarantine_limit = 1.0
[[source]]
name = "clinical"
table = "clinical"
files = "clinical.csv"
[source.columns]
patient_id = "id"
study_date = "scan"
accession_number = "accession"
birth_date = "born"
sex = { column = "sex", codes = { M = "M" } }
diabetes = "diabetes"
[[source]]
name = "encounters"
table = "encounters"
files = "encounters.csv"
[source.columns]
patient_id = "id"
admit_date = "admit"
record_type = "kind"
diagnosis_code = "dx"
diagnosis_type = "role"
procedure_code = "px"
[[source]]
name = "deaths"
table = "deaths"
files = "deaths.csv"
[source.columns]
patient_id = "id"
death_date = "died"
"""
    planted = ["ZQXJ-4711", "KWVY", "ACCQ-8155", "1931-07-23", "FREETEXTQ"]
    extracts = tmp_path / "extracts"
    path = write_site(extracts, mapping)
    good = "ZQXJ-4711,2015-06-01,ACCQ-8155,1931-07-23,M,1"
    bad = [
        "ZQXJ-4711,KWVY,ACCQ-8155,1931-07-23,M,1",
        "ZQXJ-4711,2015-06-01,ACCQ-8155,KWVY-1931-07-23,M,1",
        "ZQXJ-4711,2015-06-01,ACCQ-8155,1931-07-23,KWVY,1",
        "ZQXJ-4711,2016-06-01,ACCQ-8155,1931-07-23,M,FREETEXTQ",
        ",2015-06-01,ZQXJ-4711,1931-07-23,M,1",
        "ZQXJ-4711,2015-06-01,KWVY",
    ]
    (extracts / "clinical.csv").write_text(
        "\n".join(["id,scan,accession,born,sex,diabetes", good, *bad]) + "\n", encoding="utf-8"
    )
    (extracts / "encounters.csv").write_text(
        "id,admit,kind,dx,role,px\n"
        "ZQXJ-4711,2016-01-01,inpatient,I21,M,FREETEXTQ\n"
        "ZQXJ-4711,2016-02-01,inpatient,FREETEXTQ,KWVY,K40\n"
        "ZQXJ-4711,FREETEXTQ,KWVY,I21,M,K40\n",
        encoding="utf-8",
    )
    (extracts / "deaths.csv").write_text(
        "id,died\nZQXJ-4711,2018-01-01\nKWVY,FREETEXTQ\n", encoding="utf-8"
    )
    one = make_registry(20, 1)
    one.visits[0] = one.visits[0].__class__(
        "ZQXJ-4711", "ZQXJ-4711", "ACCQ-8155", one.visits[0].study_instance_uid,
        dt.date(2015, 6, 1),
    )  # fmt: skip
    warehouse = tmp_path / "wh"
    fill_warehouse(warehouse, one, KEYS)
    outcome = cac("link", "-w", warehouse, "--mapping", path, "--json", CAC_DEBUG="1")
    assert outcome.code == 0, outcome.err
    assert outcome.json["included"] == 1
    assert sum(extract["unusable"] for extract in outcome.json["extracts"]) == 5
    assert sum(len(extract["cells"]) for extract in outcome.json["extracts"]) == 3
    assert any("ZQXJ" in _every_text(p) for p in [warehouse / "registry"])  # the search finds
    failing = cac("link", "-w", warehouse, "--mapping", _strict(path), CAC_DEBUG="1")
    assert failing.code == 1
    searched = [outcome.out, outcome.err, failing.out, failing.err]
    searched += [_every_text(warehouse / p.name) for p in warehouse.iterdir()
                 if p.name not in ("registry", "_staging")]  # fmt: skip
    staged = warehouse / "_staging" / "linkage" / "quarantine"
    searched += [_every_text(staged), _every_text(Path(environment["HOME"]))]
    for text in searched:
        for value in planted:
            assert value.lower() not in text.lower()


def _strict(path: Path) -> Path:
    strict = path.with_name("strict.toml")
    text = path.read_text(encoding="utf-8").replace("quarantine_limit = 1.0", "")
    strict.write_text(text.replace('site = "privacy"', 'site = "strict"'), encoding="utf-8")
    return strict


@pytest.mark.slow
def test_a_scored_archive_and_its_registry(cac: Cac, scored: Scored, tmp_path: Path) -> None:
    """From DICOM to one row per patient: who is in the analysis is what the truth says."""
    warehouse = tmp_path / "wh"
    shutil.copytree(scored.warehouse, warehouse)
    made = cac("registry", tmp_path / "x", "--truth", scored.truth, "--dialect", "flat", "--json")
    mapping = made.json["mapping"]
    assert cac("link", "-w", warehouse, "--mapping", mapping, "-q").code == 0
    truth = pq.read_table(made.json["truth"]).to_pylist()
    flow = {row["patient_key"]: row["step"] for row in Warehouse(warehouse).read(FLOW).to_pylist()}
    assert flow == {KEYS.patient_key(row["patient_id"]): row["step"] for row in truth}
    days = {row["patient_key"]: row for row in Warehouse(warehouse).read(LINKED).to_pylist()}
    for row in truth:
        if row["step"] == "included":
            found = days[KEYS.patient_key(row["patient_id"])]
            assert (found["mace_event"], found["mace_days"]) == (
                row["mace_event"],
                row["mace_days"],
            )


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("--dialect", "klingon"), "Choose from abstracts, columnar, flat"),
        (("--truth", "none.parquet"), "There is no none.parquet"),
    ],
)
def test_a_registry_that_cannot_be_made_is_reported(
    cac: Cac, tmp_path: Path, arguments: tuple[str, ...], reported: str
) -> None:
    outcome = cac("registry", tmp_path / "x", *arguments)
    assert (outcome.code, reported in outcome.err) == (2, True)
