"""A German hospital's files, from a draft to the linked table, with the one edit that is needed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cac_core.cohort.mapping import load_mapping
from cac_core.cohort.outcomes import load_outcomes
from cac_core.cohort.propose import propose_mapping
from cac_core.cohort.remedies import set_aside
from cac_core.cohort.unknown_codes import code_warnings, unknown_codes
from cac_core.errors import UsageError
from cac_core.phantom.registry.records import Registry, make_registry, registry_scores
from tests.builders.german import write_german
from tests.builders.registries import KEYRING, link_extracts, make_parts

END = ("# end = YYYY-MM-DD", "end = 2019-12-31")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry(150, 8)


@pytest.fixture(scope="module")
def draft(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mapping that is drafted from the three files, beside them, as it is."""
    folder = tmp_path_factory.mktemp("german")
    write_german(registry, folder / "extracts")
    path = folder / "site.toml"
    path.write_text(propose_mapping([folder / "extracts"], folder), encoding="utf-8")
    return path


def _edited(draft: Path, *edits: tuple[str, str]) -> Path:
    text = draft.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path = draft.with_name(f"site-{abs(hash(edits))}.toml")
    path.write_text(text, encoding="utf-8")
    return path


def test_the_linked_table_is_the_truth_after_one_edit(
    draft: Path, registry: Registry, tmp_path: Path
) -> None:
    scores, accessions = registry_scores(registry, KEYRING)
    done, parts = link_extracts(_edited(draft, END), tmp_path, scores, accessions)
    flow = {row["patient_key"]: row["step"] for row in done.flow.to_pylist()}
    linked = {row["patient_key"]: row for row in done.linked.to_pylist()}
    truth = {KEYRING.patient_key(row["patient_id"]): row for row in registry.truth}
    assert flow == {key: row["step"] for key, row in truth.items()}
    for key, row in truth.items():
        if row["step"] == "included":
            names = row.keys() - {"patient_id", "step", "study_instance_uid"}
            assert {n: linked[key][n] for n in names} == {n: row[n] for n in names}
    assert not code_warnings(parts, load_outcomes())
    (unknown,) = unknown_codes(parts, load_outcomes())
    assert (unknown.kind, unknown.value) == ("diagnosis_type", "VD")


def test_a_draft_invents_no_end_of_coverage(draft: Path) -> None:
    values = tomllib.loads(draft.read_text(encoding="utf-8"))
    assert values["coverage"] == {}
    assert [source["table"] for source in values["source"]] == [
        *("clinical", "perfusion", "encounters", "deaths", "follow_up", "readings", "readings"),
    ]
    with pytest.raises(UsageError, match=r"coverage.end: Field required.*ask the registry"):
        load_mapping(draft)


def test_types_that_no_outcome_uses_are_warned_of_with_the_mapping(
    draft: Path, tmp_path: Path
) -> None:
    plain = _edited(draft, END, (', codes = { "HD" = "M", "ND" = "1" }', ""))
    _, parts = make_parts(plain, tmp_path)
    (warning,) = code_warnings(parts, load_outcomes())
    assert "source encounters: no outcome uses any of its diagnosis types (HD, ND, VD)" in warning
    assert 'codes = { "HD" = "M", "ND" = "1" }' in warning and "ALL of its" in warning


def test_codes_of_a_system_that_must_be_stated_are_warned_of(draft: Path, tmp_path: Path) -> None:
    unstated = _edited(draft, END, ('procedure_system = { constant = "OPS" }\n', ""))
    _, parts = make_parts(unstated, tmp_path)
    (warning,) = code_warnings(parts, load_outcomes())
    assert 'write in the mapping: procedure_system = { constant = "OPS" }' in warning


def test_what_was_set_aside_is_shown_with_what_to_change(draft: Path, tmp_path: Path) -> None:
    wrong = _edited(
        draft, END, ('decimal = ","\n', ""), ('codes = { "m" = "M", "w" = "F" }', "codes = {}")
    )
    _, parts = make_parts(wrong, tmp_path)
    rows = [pq.read_table(part.quarantine) for part in parts[:1]]
    found = {(item.column, item.reason): item for item in set_aside(rows[0])}
    age = found["age_years", "unparsed_number"]
    assert (age.change, age.examples[0], age.row_kept) == ('`decimal = ","`', "99,9", True)
    sex = found["sex", "unmapped_code"]
    assert sex.file == "clinical/1" and set(sex.examples) == {"w", "unbekannt"}
    assert sex.change.startswith('`codes` of `sex`: add "w" = "F"; for unbekannt: `codes` (F, M)')
