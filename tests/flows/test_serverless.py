"""Jobs in one process start no server, and report to a site's server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from tests.builders.registries import fill_warehouse
from tests.flows.conftest import SECRET, Cac


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    """Mapping of a site that can be linked; its warehouse is `wh` beside it."""
    registry = make_registry(60, 8)
    fill_warehouse(tmp_path / "wh", registry, Keyring(SECRET.encode()))
    return write_extracts(registry, "abstracts", tmp_path / "extracts", 1)


def test_a_linkage_needs_no_server_and_no_home(
    cac: Cac, environment: dict[str, str], tmp_path: Path, mapping: Path
) -> None:
    home = tmp_path / "home"
    # What Prefect would stumble over in the current folder or the environment does not concern it.
    outcome = cac(
        "link", "-w", tmp_path / "wh", "--mapping", mapping, "--json",
        HOME=str(home),
        PREFECT_PROFILE="no such profile", ALL_PROXY="socks5://127.0.0.1:1",
    )  # fmt: skip
    assert (outcome.code, outcome.json["outcome"]) == (0, "linked"), outcome.err
    assert not list(home.rglob("server.log"))
    assert not list(home.rglob("prefect.db"))
    site = {name: environment[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")}
    reported = cac("link", "-w", tmp_path / "wh", "--mapping", mapping, "--json", "--quiet", **site)
    assert (reported.code, reported.json["outcome"], reported.err) == (0, "unchanged", "")


@pytest.mark.slow
def test_the_report_follows_a_scheduled_linkage(cac: Cac, tmp_path: Path, mapping: Path) -> None:
    config = tmp_path / "cac.toml"
    config.write_text(f'warehouse = "wh"\n[linkage]\nmapping = "{mapping}"\n', encoding="utf-8")
    alone = cac("link", "-c", config, "--scheduled", "--json", "-q")
    assert (alone.code, alone.json["followed_by"]) == (0, {}), alone.err
    assert not (tmp_path / "wh" / "reports" / "cohort").exists()
    with config.open("a", encoding="utf-8") as file:
        file.write("[schedule]\nreport_after_link = true\n")
    by_hand = cac("link", "-c", config, "--json", "-q")
    assert (by_hand.code, by_hand.json["followed_by"]) == (0, {}), by_hand.err
    followed = cac("link", "-c", config, "--scheduled", "--json", timeout=900)
    (state,) = followed.json["followed_by"].values()
    assert state in ("Completed", "IncompleteReport")
    assert followed.code == (0 if state == "Completed" else 3), followed.err
    assert (tmp_path / "wh" / "reports" / "cohort" / "index.html").is_file()
