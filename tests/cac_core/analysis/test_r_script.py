"""The script for R repeats our hazard ratios: with R where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cac_core.analysis.design import Patients
from cac_core.analysis.estimate import Question
from cac_core.analysis.hazards import multivariable, univariable
from cac_core.analysis.r_script import r_script
from cac_core.analysis.run import estimates_table
from cac_core.cohort.export_files import write_tables
from tests.builders.analyses import linked_events, plan
from tests.builders.golden import table

OUTCOMES = ("mace", "death")


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")
@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_r_finds_the_same_hazard_ratios(cohort: str, tmp_path: Path) -> None:
    """`nasty` has missing values, a level without events and tied days."""
    wanted = plan(outcomes=OUTCOMES)
    linked, _ = linked_events(table(cohort))
    question = Question("all", Patients.from_table(linked), wanted)
    rows = [row for name in OUTCOMES for row in (*multivariable(question, name),
                                                 *univariable(question, name))]  # fmt: skip
    write_tables({"linked": linked, "estimates": estimates_table(rows)}, tmp_path, "csv")
    script = tmp_path / "analysis.R"
    script.write_text(r_script(wanted), encoding="utf-8")
    done = subprocess.run(
        ["Rscript", script, tmp_path / "linked.csv", tmp_path / "estimates.csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    finite = sum(row.statistic == "hazard_ratio" and row.p_value is not None
                 and row.value is not None for row in rows)  # fmt: skip
    assert f"{finite} hazard ratios compared" in done.stdout
    assert (tmp_path / "table_2_r.csv").is_file()


def test_texts_of_the_plan_are_quoted() -> None:
    """Names of a plan cannot become code of R."""
    term = {"name": 'a"); quit("', "label": "a", "kind": "binary", "positive": "it\\s"}
    text = r_script(plan(covariates=[term], interaction=None))
    assert r'"a\"); quit(\""' in text
    assert r'"it\\s"' in text
    assert "{plan}" not in text
    assert "splines" not in text.split("# ---- data")[0]


def test_a_plan_that_imputes_is_said_to() -> None:
    text = r_script(plan(missing="multiple_imputation"))
    assert "# The plan imputes missing values" in text
