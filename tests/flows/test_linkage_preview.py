"""The dry run of a linkage says what the linkage then does; totals and warnings agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.errors import CacError
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from flows.linkage import link_cohort
from flows.linkage_preview import dry_run
from flows.quarantine import quarantined
from flows.request import LinkageRequest
from tests.builders.registries import fill_warehouse


@pytest.fixture
def request_of_a_site(tmp_path: Path, linkage_key: str) -> LinkageRequest:
    registry = make_registry(150, 8)
    fill_warehouse(tmp_path / "wh", registry, Keyring(linkage_key.encode()))
    mapping = write_extracts(registry, "abstracts", tmp_path / "x", 1)
    return LinkageRequest(warehouse=str(tmp_path / "wh"), mapping=str(mapping))


def test_the_totals_of_dry_run_linkage_and_quarantine_agree(
    request_of_a_site: LinkageRequest,
) -> None:
    dry = dry_run(request_of_a_site)
    assert not dry.stops
    done = link_cohort(request_of_a_site)
    aside = quarantined(request_of_a_site.warehouse, None)
    lines = {item.label: item.in_quarantine for item in done.extracts}
    assert sum(lines.values()) == aside.rows > sum(item.unusable for item in done.extracts)
    assert {item.label: item.in_quarantine for item in dry.extracts} == lines
    assert dry.set_aside == aside.set_aside
    assert dry.matches == done.matches
    assert dry.warnings == done.warnings
    later = {fault.reason for item in done.extracts for fault in item.found_later}
    assert later and later <= {"conflicting_rows", "after_death", "before_birth", "sex_differs",
                               "birth_year_differs", "conflicting_match", "shared_accession",
                               "ambiguous_match", "accession_outside_window"}  # fmt: skip
    for step in done.flow:
        if step.step in ("known_cad", "missing_covariate"):
            assert sum(n for n in step.details.values() if isinstance(n, int)) == step.patients
        else:
            assert not step.details
    again = link_cohort(request_of_a_site)
    assert again.outcome == "unchanged"
    assert [e.found_later for e in again.extracts] == [e.found_later for e in done.extracts]


def test_identifiers_that_match_nothing_stop_the_dry_run_too(
    request_of_a_site: LinkageRequest,
) -> None:
    clinical = Path(str(request_of_a_site.mapping)).parent / "clinical.csv"
    header, *rows = clinical.read_text(encoding="utf-8").splitlines()
    altered = [f"X{row}" for row in rows]  # the number of the patient is the first column
    clinical.write_text("\n".join([header, *altered]) + "\n", encoding="utf-8")
    text = Path(str(request_of_a_site.mapping)).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("accession_number")]
    Path(str(request_of_a_site.mapping)).write_text("\n".join(lines), encoding="utf-8")
    (stop,) = dry_run(request_of_a_site).stops
    assert "clinical rows match a study" in stop and "less than the limit of 5%" in stop
    with pytest.raises(CacError) as raised:
        link_cohort(request_of_a_site)
    assert raised.value.what.startswith(stop)


def test_a_clinical_table_without_rows_stops_both(request_of_a_site: LinkageRequest) -> None:
    clinical = Path(str(request_of_a_site.mapping)).parent / "clinical.csv"
    clinical.write_text(clinical.read_text("utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert any("clinical table of source" in stop for stop in dry_run(request_of_a_site).stops)
    with pytest.raises(CacError, match="has no row") as raised:
        link_cohort(request_of_a_site)
    assert "min_match_rate" not in str(raised.value)
