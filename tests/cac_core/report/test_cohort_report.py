"""The cohort report: every number is an estimate, what is missing is said, the same bytes."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from cac_core.analysis.plan import Plan
from cac_core.report.cohort.assemble import Assembled
from cac_core.report.cohort.sections import cell_text
from cac_core.report.cohort.shown_estimates import plain
from tests.builders.analyses import plan
from tests.builders.golden import table
from tests.builders.reports import assembled, nasty_report, report_of
from tests.cac_core.report.test_page import Tags

#: Written by hand from the formats' names: factor, digits.
WRITTEN = {"count": (1, 0), "percent": (100, 1), "one": (1, 1), "two": (1, 2), "three": (1, 3),
           "four": (1, 4)}  # fmt: skip
SECTIONS = {
    "Table 1", "Supplemental Table 4", "Supplemental Table 1", "Figure 3", "Supplemental Figure 1",
    "Supplemental Table 3", "Supplemental Results", "Figure 4", "Supplemental Figure 3", "Table 2",
    "Supplemental Table 5", "Figure 5", "Supplemental Table 6", "Figure 2",
}  # fmt: skip


class Numbers(HTMLParser):
    """Numbers of a page that name their row, and the rest of the text of cells for numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str, str]] = []
        self.cells: list[str] = []
        self._data: tuple[str, str] | None = None
        self._in_cell = False
        self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin of a number or a cell."""
        values = dict(attrs)
        if tag == "data":
            self._data = str(values["value"]), str(values["data-as"])
        elif tag == "div" and values.get("class") == "table":
            self._table = str(values["id"])
        elif tag == "td" and values.get("class") == "number":
            self._in_cell = True
            self.cells.append(f"{self._table}: ")

    def handle_endtag(self, tag: str) -> None:
        """End of a number or a cell."""
        if tag == "data":
            self._data = None
        elif tag == "td":
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        """Text."""
        if self._data is not None:
            self.numbers.append((*self._data, data))
        elif self._in_cell:
            self.cells[-1] += data


def page(done: Assembled) -> str:
    return done.files["index.html"].decode()


def estimates(done: Assembled) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(done.files["tables/estimates.parquet"])).to_pylist()


def test_every_number_of_the_page_is_the_estimate_it_names() -> None:
    _, done = nasty_report()
    rows = estimates(done)
    numbers = Numbers(page(done)).numbers
    assert len(numbers) > 2000
    for name, style, text in numbers:
        index, column = name.split(".")
        assert rows[int(index)]["row"] == int(index)
        value = rows[int(index)][column]
        if style == "p":
            assert (text == "<0.001") == (value < 0.001)
            assert text == "<0.001" or float(text) == pytest.approx(value, abs=5.01e-4)
            continue
        factor, digits = WRITTEN[style]
        assert math.isclose(
            float(text.replace(",", "")), factor * value, abs_tol=0.501 * 10.0**-digits
        ), (name, text, value)
        assert len(text.rpartition(".")[2] if "." in text else "") == digits


#: Years of curves are where numbers stand, and the cases are rows of `discrepancies`.
AXES = re.compile(r"event-free-|cumulative-|incidence-table|discrepant-cases")


def test_no_cell_for_numbers_holds_one_that_names_no_estimate() -> None:
    _, done = nasty_report()
    cells = Numbers(page(done)).cells
    assert len(cells) > 1500
    loose = [cell for cell in cells if not AXES.match(cell) and re.search(r": .*\d", cell)]
    assert loose == []


def test_numbers_json_lists_what_is_shown_with_full_precision() -> None:
    _, done = nasty_report()
    listed = json.loads(done.files["numbers.json"])
    rows = estimates(done)
    assert listed["estimates"]["rows"] == len(rows)
    shown = {(f"{one['row']}.{one['column']}", one["text"]) for one in listed["numbers"]}
    assert {(name, text) for name, _, text in Numbers(page(done)).numbers} <= shown
    for one in listed["numbers"]:
        assert one["number"] == rows[one["row"]][one["column"]]
    sections = re.findall(r'<section id="([^"]+)"', page(done))
    assert {one["in"] for one in listed["numbers"]} <= set(sections)


def test_the_sections_name_the_tables_and_figures_of_the_paper() -> None:
    _, done = nasty_report()
    titles = re.findall(r'<h2 id="[^"]+">(.*?)</h2>', page(done))
    named = {one.strip() for title in titles for one in re.findall(r"\(([^)]+)\)", title)
             for one in one.split(",")}  # fmt: skip
    assert named >= SECTIONS
    assert not Tags(page(done)).open
    identifiers = re.findall(r'\bid="([^"]+)"', page(done))
    assert len(identifiers) == len(set(identifiers))


def test_tables_and_figures_are_files_too() -> None:
    report, done = nasty_report()
    for name, shown in report.tables.items():
        csv = pacsv.read_csv(io.BytesIO(done.files[f"tables/{name}.csv"]))
        parquet = pq.read_table(io.BytesIO(done.files[f"tables/{name}.parquet"]))
        assert csv.num_rows == parquet.num_rows == len(shown.rows)
        assert csv.column_names == parquet.column_names
    kept = pq.read_table(io.BytesIO(done.files["tables/estimates.parquet"]))
    assert kept.drop_columns(["row"]).equals(report.numbers.table)
    for name in report.figures:
        assert done.files[f"figures/{name}.svg"].startswith(b"<?xml")
        assert done.files[f"figures/{name}.png"].startswith(b"\x89PNG")
    assert done.files["report.pdf"].startswith(b"%PDF")
    assert f'<figure id="{next(iter(report.figures))}"' in page(done)


def texts_of(done: Assembled) -> str:
    """Text of the page without data dictionary, versions, code and scripts."""
    text = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page(done), flags=re.DOTALL)
    for hidden in ("dictionary", "provenance"):
        text = re.sub(rf'<section id="{hidden}".*?</section>', " ", text, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", re.sub(r"<code>.*?</code>", " ", text))


@pytest.mark.parametrize("drop", [(), ("bmi_kg_m2", "expert_cac_category", "death_event")])
def test_no_code_word_is_in_the_text_of_the_page(drop: tuple[str, ...]) -> None:
    done = (
        nasty_report()[1] if not drop else assembled(report_of(table("nasty"), short(), drop=drop))
    )
    words = re.findall(r"\w*[a-z]_[a-z]\w*|`", texts_of(done))
    assert words == []
    assert not re.search(r"\bdl\b|\bmace\b", texts_of(done))


def test_events_of_sensitivity_analyses_are_those_of_the_category() -> None:
    report, _ = nasty_report()
    rows = [[cell_text(item) for item in row] for row in report.tables["cause-specific"].rows]
    sums: dict[tuple[str, str], int] = {}
    for outcome, reading, _, _, events, *_ in rows:
        sums[outcome, reading] = sums.get((outcome, reading), 0) + int(events)
    whole = report.numbers.rows("cause_specific", "lr_chi2")
    assert len(sums) == len(whole) > 1
    assert [*sums.values()] == [row.n_events for row in whole]


def test_the_flow_tells_who_remains() -> None:
    report, _ = nasty_report()
    rows = [[cell_text(item) for item in row] for row in report.tables["cohort-flow"].rows]
    remaining = [int(row[2].replace(",", "")) for row in rows]
    left = [int(row[1] or 0) for row in rows]
    for before, gone, after in zip(remaining, left[1:], remaining[1:], strict=False):
        assert before - gone == after


def test_table_1_has_units_tests_and_missing_values() -> None:
    report, _ = nasty_report()
    shown = report.tables["table-1-dl"]
    titles = [cell_text(column.title) for column in shown.columns]
    assert titles[-3:] == ["Missing", "p", "Test"]
    lines = {cell_text(row[0]): [cell_text(item) for item in row] for row in shown.rows}
    assert any(name.startswith("Age, years, ") for name in lines)
    assert any(name.startswith("BMI, kg/m\N{SUPERSCRIPT TWO}, ") for name in lines)
    assert lines["Male, n (%)"][-1] == "chi2"
    assert "chi2: Pearson chi-square" in shown.note
    missing = int(pc.sum(pc.is_null(report.facts.linked["bmi_kg_m2"])).as_py())
    assert next(line for name, line in lines.items() if name.startswith("BMI"))[-3] == str(missing)


def test_variables_of_one_column_stand_together() -> None:
    report, _ = nasty_report()
    names = [cell_text(row[0]) for row in report.tables["table-1-dl"].rows]
    about = [at for at, name in enumerate(names) if name.startswith("Stress TPD, %")]
    between = names[about[0] + 1 : about[1]]
    assert len(about) == 2 and all(name.startswith("\N{EM SPACE}") for name in between)


def test_sections_of_one_outcome_say_which() -> None:
    text = page(nasty_report()[1])
    for name in ("table-s4", "figure-5", "calibration"):
        (section,) = re.findall(rf'<section id="{name}".*?</section>', text, re.DOTALL)
        assert "For MACE only, the primary outcome" in section
    (tiles,) = re.findall(r'<ul class="tiles">.*?</ul>', text, re.DOTALL)
    for asked in ("adjusted hazard ratio", "gain in likelihood-ratio", "net reclassification"):
        assert re.search(rf"{asked}[^<]*, for MACE", tiles)
    assert re.search(r"</data> to .*median follow-up.*years \(IQR\)", tiles, re.DOTALL)


def test_text_alternatives_differ_and_have_the_main_numbers() -> None:
    report, _ = nasty_report()
    said = {name: text for name, (_, text) in report.drawings.items()}
    assert len(set(said.values())) == len(said)
    row = report.numbers.one("log_rank", "chi2", population="all", outcome="death", model="dl",
                             level=None)  # fmt: skip
    shown = said["figure-survival-death-dl"]
    assert "free of death by category of DL CAC" in shown and "Log-rank p" in shown
    events = sum(int(count) for count in re.findall(r", (\d+) events", shown))
    patients = sum(int(count) for count in re.findall(r": (\d+) patients", shown))
    assert row is not None and (patients, events) == (row.n, row.n_events)


def test_cumulative_incidence_is_one_less_survival_with_patients_at_risk() -> None:
    report, _ = nasty_report()
    years = report.plan.horizon_years
    free = {
        row.level: row
        for row in report.numbers.rows("kaplan_meier", "event_free", outcome="mace", model="dl")
        if row.at == years * 365.25
    }
    lines = [[cell_text(item) for item in row] for row in report.tables["cumulative-mace"].rows]
    at_horizon = {
        line[1]: line for line in lines if line[0] == "DL CAC" and line[2] == f"{years:g}"
    }
    assert len(free) == len(at_horizon) > 1
    for level, row in free.items():
        line = at_horizon[report.source_level("dl", str(level))]
        assert line[5].split(" ")[0] == f"{100 * (1 - row.value):.1f}"
    assert {"All patients", "DL CAC", "Expert CAC"} <= {line[0] for line in lines}
    caption = "Rates of MACE per 100 person-years (% per year)"
    assert report.tables["event-rates-mace"].caption == caption
    whole = report.tables["event-rates-mace"].rows[0]
    assert cell_text(whole[0]) == "All patients"
    assert cell_text(whole[2]) == f"{len(report.facts.linked):,}"


def test_counts_and_shares_that_differ_say_of_what_they_are() -> None:
    report, _ = nasty_report()
    assert "Counts are over all follow-up" in report.tables["reclassified"].note
    assert "not ratios of the counts" in report.tables["reclassified"].note
    titles = [cell_text(column.title) for column in report.tables["calibration-groups"].columns]
    assert "Events by 3 years" in titles
    forms = " ".join(cell_text(row[1]) for row in report.tables["nri-forms"].rows)
    assert "below 3 %, 3 % to below 9 %, 9 % and above" in forms
    flags = report.numbers.one("acquisition", "count", population="archive", term="quality_flag")
    assert flags is not None
    assert plain(report.tables["acquisition-quality-flag"].note).startswith(f"Of {flags.n} studies")
    grades = report.tables["agreement-visual-dl"].note
    assert "<1 absent; 1-100 and 101-400 present; >400 extensive" in grades
    assert "equivocal counts as present" in grades


def test_the_method_of_every_row_is_said_once() -> None:
    report, _ = nasty_report()
    table = report.tables["proportional-hazards"]
    assert "Method" not in [column.title for column in table.columns]
    assert "score test" in table.note.lower()
    outcomes = [cell_text(row[0]) for row in table.rows]
    assert outcomes == [report.outcome(name) for name in table.outcomes]


def test_nothing_in_the_files_leads_elsewhere() -> None:
    _, done = nasty_report()
    text = page(done)
    led = re.findall(r'(?:src|href)="(?!#|data:|studies/)([^"]*)"', text)
    assert led and set(led) <= set(done.files)
    # Links inside the page lead somewhere.
    identifiers = set(re.findall(r'\bid="([^"]+)"', text))
    assert {target for target in re.findall(r'href="#([^"]+)"', text)} <= identifiers


def short(**changes: object) -> Plan:
    """A plan of few figures."""
    outcomes = {"outcomes": ["mace", "death"], "components": ["mi"]}
    return plan(**(outcomes | changes))


@pytest.mark.slow
def test_two_reports_of_the_same_cohort_have_the_same_bytes() -> None:
    _, first = nasty_report()
    again = assembled(report_of(table("nasty")))
    assert first.files.keys() == again.files.keys()
    assert [name for name in first.files if first.files[name] != again.files[name]] == []


def test_a_category_without_events_is_reported_and_the_rest_is_there() -> None:
    _, done = nasty_report()
    shown = done.gaps["Hazard ratios (Table 2)"]
    assert any("1-100: no events in the" in reason for reason in shown)
    assert 'id="table-2-mace-dl"' in page(done)
    assert "not estimable</span>" in page(done)


def test_a_cohort_without_events_readings_or_a_covariate() -> None:
    frame = table("nasty").copy()
    for name in [name for name in frame if name.endswith("_event")]:
        frame[name] = frame[name].where(frame[name].isna(), 0)
    for name in [name for name in frame if name.endswith("_first_days")]:
        frame[name] = float("nan")
    frame["expert_agatston"] = frame["expert_cac_category"] = frame["visual_grade"] = None
    frame["bmi_kg_m2"] = float("nan")
    frame["smoking"] = 0
    done = assembled(report_of(frame, short()))
    shown = json.dumps(done.gaps)
    for why in (
        "no events",
        "no patient has both readings",
        "Expert CAC category is missing in all patients",
    ):
        assert why in shown, why
    for title in (
        "Hazard ratios (Table 2)",
        "What CAC adds to the model (Figure 5, Supplemental Table 6)",
        "Concordance of the readings (Figure 3)",
    ):
        assert done.gaps[title]
    assert 'id="table-1-dl"' in page(done) and "Cohort flow (" not in shown
    assert not Tags(page(done)).open
    # No tile is a bare dash: a number that the model lacks has its reason.
    (tiles,) = re.findall(r'<ul class="tiles">.*?</ul>', page(done), re.DOTALL)
    for asked in ("adjusted hazard ratio", "net reclassification", "gain in likelihood-ratio"):
        (tile,) = re.findall(rf"<li>(?:(?!<li>).)*?{asked}", tiles, re.DOTALL)
        assert re.search(r'title="[^"]+">not estimable<', tile), tile


@pytest.mark.slow
def test_one_patient() -> None:
    done = assembled(report_of(table("nasty").iloc[:1], short()))
    assert done.gaps and not Tags(page(done)).open
    assert 'id="acquisition-measures"' in page(done)


def test_certainty_is_compared_with_the_expert() -> None:
    report, done = nasty_report()
    assert 'id="certainty-measures"' in page(done)
    assert "figures/figure-certainty.svg" in done.files
    (brier,) = report.numbers.rows("certainty", "brier")
    assert brier.value is not None
    assert f">{brier.value:.3f}<" in page(done)


@pytest.mark.slow
def test_an_outcome_that_is_not_linked() -> None:
    drop = ("death_event", "death_days")
    done = assembled(report_of(table("nasty").iloc[:120], short(), drop=drop))
    title = "Secondary outcomes, early revascularisation excluded (Supplemental Table 5)"
    shown = done.gaps[title]
    assert any("outcome death is not linked" in reason for reason in shown)


@pytest.mark.slow
def test_populations_are_blocks_of_their_own() -> None:
    wanted = short(
        populations={
            "all": {"description": "everybody"},
            "women": {
                "description": "women alone",
                "where": [{"column": "sex", "equals": "F"}],
            },
        },
    )
    report = report_of(table("nasty"), wanted)
    text = page(assembled(report))
    assert "table-1-dl-women" in report.tables
    assert text.count('data-population="women"') == text.count('data-population="all"') - 2
    assert '<option value="women">women alone</option>' in text


@pytest.mark.slow
def test_small_counts_are_hidden_everywhere() -> None:
    report = report_of(table("nasty"), short(), hidden=True)
    done = assembled(report)
    counted = ("count", "at_risk", "missing", "n_up", "n_down", "patients", "events")
    for row in estimates(done):
        if row["statistic"] in counted:
            assert not (row["value"] and 0 < row["value"] < 5), row
        assert not (row["n"] and row["n"] < 5) and not (row["n_events"] and row["n_events"] < 5)
    text = page(done)
    assert "hidden</span>" in text and "discrepant-cases" not in text
    assert "<image" not in text and "application/json" not in text
    keys = report.facts.linked["study_key"].to_pylist()
    assert not any(key in text for key in keys)


def test_no_patient_is_named_outside_of_the_case_lists() -> None:
    report, done = nasty_report()
    text = page(done)
    assert not any(key in text for key in report.facts.linked["patient_key"].to_pylist())


def test_the_estimates_are_a_table_of_the_schema() -> None:
    report, _ = nasty_report()
    assert isinstance(report.numbers.table, pa.Table)
    assert report.numbers.row(3).index == 3
