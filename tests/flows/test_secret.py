"""Every command that uses the secret compares it with that of the warehouse before it writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cac_core.cohort.fingerprint import keep_fingerprint
from cac_core.cohort.warehouse import FINGERPRINT_FILE, Warehouse
from cac_core.errors import UsageError
from cac_core.evaluation.sources import Source, pair_sources
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import Registry, make_registry
from flows.cli.options import console
from flows.doctor import check_installation
from flows.index import index
from flows.key_lookup import lookup_key
from flows.planning import dry_run
from flows.request import (
    LinkageRequest,
    ScoringRequest,
    prepare_scoring,
    read_settings,
    site_keyring,
)
from flows.runtime.progress import RunProgress
from flows.status import warehouse_status
from schemas.score import SCORES
from tests.builders.ct_series import write_ct_series
from tests.builders.registries import fill_warehouse
from tests.builders.rows import score_row
from tests.flows.conftest import SECRET

QUIET = RunProgress(console, quiet=True)
OTHER = "the secret of another site"
Refused = Callable[[str, str], object]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("archive")
    write_ct_series(folder, n_slices=3)
    return str(folder)


@pytest.fixture(scope="module")
def indexed(archive: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, indexed with the secret of the tests, and a score."""
    folder = tmp_path_factory.mktemp("indexed") / "wh"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CAC_LINKAGE_KEY", SECRET)
        index([archive], str(folder), None, QUIET)
    Warehouse(folder).replace(SCORES, SCORES.from_rows([score_row(1)]), "m")
    return folder


@pytest.fixture
def warehouse(indexed: Path, tmp_path: Path) -> str:
    """A copy of that warehouse."""
    return str(shutil.copytree(indexed, tmp_path / "wh"))


def _evaluate(archive: str, warehouse: str) -> object:
    # The secret is compared before the file is opened.
    readings = Path(archive) / "readings.csv"
    return pair_sources(warehouse, Source("model"), Source("reader", "a"), readings)


REFUSED: dict[str, Refused] = {
    "index": lambda archive, warehouse: index([archive], warehouse, None, QUIET),
    "score": lambda archive, warehouse: prepare_scoring(ScoringRequest((archive,), warehouse)),
    "dry run": lambda archive, warehouse: dry_run(ScoringRequest((archive,), warehouse), QUIET),
    "lookup": lambda archive, warehouse: lookup_key("0" * 32, [archive], None, warehouse),
    "evaluate": _evaluate,
}


@pytest.mark.parametrize("command", REFUSED)
def test_another_secret_is_refused_and_nothing_is_written(
    command: str, archive: str, warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in Path(warehouse).rglob("*") if p.is_file()}
    monkeypatch.setenv("CAC_LINKAGE_KEY", OTHER)
    with pytest.raises(UsageError, match=r"not the one that the warehouse .* was made with"):
        REFUSED[command](archive, warehouse)
    assert {p: p.read_bytes() for p in Path(warehouse).rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("command", ["index", "score", "lookup"])
def test_without_a_secret_that_of_the_warehouse_is_asked_for(
    command: str, archive: str, warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAC_LINKAGE_KEY")
    with pytest.raises(UsageError, match=r"secret that the warehouse .* was made with") as raised:
        REFUSED[command](archive, warehouse)
    assert "openssl" not in str(raised.value)


def test_of_two_secrets_that_of_the_key_file_is_used_and_named(
    warehouse: str, tmp_path: Path, linkage_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, file = tmp_path / "cac.toml", tmp_path / "site.key"
    file.touch(mode=0o600)
    file.write_text(OTHER, encoding="utf-8")
    config.write_text('key_file = "site.key"\n', encoding="utf-8")
    settings, store = read_settings(str(config)), Warehouse(warehouse)
    with pytest.raises(UsageError, match=r"not the one .* `key_file` .* is used, and CAC_LINKAGE"):
        site_keyring(settings, store)
    file.write_text(linkage_key, encoding="utf-8")
    monkeypatch.setenv("CAC_LINKAGE_KEY", OTHER)
    assert site_keyring(settings, store) == Keyring(linkage_key.encode())
    checks = {check.name: check for check in check_installation(config, warehouse).checks}
    assert "CAC_LINKAGE_KEY is ignored" in checks["linkage secret"].found


def test_an_old_warehouse_gets_the_fingerprint_of_the_right_secret(
    archive: str, warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Path(warehouse) / FINGERPRINT_FILE
    text = kept.read_text()
    kept.unlink()
    with monkeypatch.context() as other:
        other.setenv("CAC_LINKAGE_KEY", OTHER)
        with pytest.raises(UsageError, match=r"No file, study or patient of the archive is known"):
            index([archive], warehouse, None, QUIET)
        assert not kept.exists()
    index([archive], warehouse, None, QUIET)
    assert kept.read_text() == text


def test_status_and_doctor_tell_whether_the_secret_fits(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[str, bool]:
        checks = {check.name: check for check in check_installation(None, warehouse).checks}
        return warehouse_status(warehouse, None).secret, checks["linkage secret"].ok

    assert found() == ("same", True)
    monkeypatch.setenv("CAC_LINKAGE_KEY", OTHER)
    assert found() == ("another", False)
    monkeypatch.setenv("CAC_LINKAGE_KEY", "short")
    assert found() == ("not_given", False)
    (Path(warehouse) / FINGERPRINT_FILE).unlink()
    assert warehouse_status(warehouse, None).secret == "no_fingerprint"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry(30, 2)


def test_a_linkage_seals_an_old_warehouse_only_if_a_patient_matches(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linkage_key: str
) -> None:
    from flows.linkage import link_cohort

    store = fill_warehouse(tmp_path / "wh", registry, Keyring(linkage_key.encode()))
    mapping = write_extracts(registry, "flat", tmp_path / "x", 1)
    text = mapping.read_text(encoding="utf-8")
    mapping.write_text(text.replace("[rules]", "[rules]\nmin_match_rate = 0", 1), encoding="utf-8")
    request = LinkageRequest(store.url, mapping=str(mapping))
    with monkeypatch.context() as other:
        other.setenv("CAC_LINKAGE_KEY", OTHER)
        with pytest.raises(UsageError, match=r"No patient of the registry .* `cac index`"):
            link_cohort(request)
        assert store.fingerprint() is None and not (tmp_path / "wh" / "linked").exists()
    assert link_cohort(request).included > 0
    assert store.fingerprint() == Keyring(linkage_key.encode()).fingerprint
    monkeypatch.setenv("CAC_LINKAGE_KEY", OTHER)
    with pytest.raises(UsageError, match="not the one"):
        link_cohort(request)


@pytest.mark.slow
def test_a_cohort_without_patients_is_a_report_that_says_so(
    registry: Registry, tmp_path: Path, linkage_key: str
) -> None:
    """The registry ends before the first scan: everybody leaves, and the report is written."""
    from flows.linkage import link_cohort
    from flows.report import ReportRequest, prepare_report, write_report

    keyring = Keyring(linkage_key.encode())
    store = fill_warehouse(tmp_path / "wh", registry, keyring)
    keep_fingerprint(store, keyring)
    mapping = write_extracts(registry, "flat", tmp_path / "x", 1)
    text = mapping.read_text(encoding="utf-8").replace("2019-12-31", "2001-12-31")
    mapping.write_text(text.replace("quarantine_limit = 0.15", "quarantine_limit = 1"))
    linked = link_cohort(LinkageRequest(store.url, mapping=str(mapping)))
    assert linked.included == 0
    why = "no follow-up after the scan (coverage, life or membership ended on or before its day)"
    assert linked.empty_because[0] == "every patient leaves the cohort before the analysis"
    assert why in linked.empty_because
    summary = write_report(prepare_report(ReportRequest(store.url)), QUIET)
    assert (summary.outcome, summary.patients) == ("incomplete", 0)
    assert summary.empty_because == linked.empty_because
    assert any("the cohort is empty" in text for text in summary.gaps["Cohort flow"])
    page = Path(summary.page).read_text(encoding="utf-8")
    assert "The cohort is empty:" in page and why in page
    assert page.index("The cohort is empty:") < page.index("What is missing</h2>")
    assert (Path(summary.out) / "report.pdf").read_bytes().startswith(b"%PDF")
