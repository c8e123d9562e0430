"""What `cac deployment register` registers follows the settings; its faults are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.errors import UsageError
from cac_core.settings import LinkageSettings, ScheduleSettings, Settings
from flows.deployment.register import described
from tests.flows.conftest import Cac


def crons(**schedule: str) -> dict[str, list[tuple[str, str]]]:
    """Schedules of the deployments of a site that links."""
    settings = Settings(
        schedule=ScheduleSettings(**schedule), linkage=LinkageSettings(mapping=Path("site.toml"))
    )
    return {
        one["name"]: [(line["cron"], line["timezone"]) for line in one["schedules"]]
        for one in described(settings, "/site/cac.toml")["deployments"]
    }


def test_schedules_and_settings_file_are_those_of_the_site() -> None:
    found = crons(rescore="0 2 * * *", link="", timezone="Europe/Berlin")
    assert found == {
        "nightly-rescore": [("0 2 * * *", "Europe/Berlin")],
        "registry-linkage": [],
        "cohort-report": [("0 7 1 * *", "Europe/Berlin")],
        "backfill": [],
        "train-networks": [],
    }
    for one in described(Settings(), "/site/cac.toml")["deployments"]:
        assert one["parameters"].get("config", "/site/cac.toml") == "/site/cac.toml"
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_a_site_may_start_every_run_by_hand() -> None:
    assert set(map(tuple, crons(rescore="", link="", report="").values())) == {()}


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not a cron line"):
        crons(rescore="every night")


def test_a_dry_run_asks_no_server(cac: Cac, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "file").write_bytes(b"x")
    config = tmp_path / "cac.toml"
    config.write_text('archive = ["archive"]\nwarehouse = "wh"\n', encoding="utf-8")
    told = cac("deployment", "register", "-c", config, "--dry-run", "--json", PREFECT_API_URL=None)
    assert told.json["facts"] == {"nightly-rescore": "30 1 * * * UTC"}, told.err


@pytest.mark.slow
def test_a_server_is_brought_to_the_state_of_the_settings(cac: Cac, tmp_path: Path) -> None:
    """Against a server that runs no services, as that of the tests."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "file").write_bytes(b"x")
    config = tmp_path / "cac.toml"
    text = 'archive = ["archive"]\nwarehouse = "wh"\n[schedule]\n'
    config.write_text(text, encoding="utf-8")
    first = cac("deployment", "register", "-c", config, "--json")
    assert first.code == 0 and first.json["work_pool_created"], first.err
    config.write_text(text + 'rescore = ""\nlink = ""\nreport = ""\n', encoding="utf-8")
    second = cac("deployment", "register", "-c", config, "--json", "--runs-at-once", 3)
    assert second.code == 0 and not second.json["work_pool_created"], second.err
    removed = {one["name"]: one["schedules_removed"] for one in second.json["deployments"]}
    assert removed.pop("nightly-rescore") == 1 and set(removed.values()) == {0}
    doctor = cac("doctor", "-c", config)
    assert "has the work pool `cac`" in doctor.out
    with config.open("a", encoding="utf-8") as file:
        file.write('[notify]\nprefect_block = "slack-webhook/nobody"\n')
    third = cac("deployment", "register", "-c", config)
    assert third.code == 1 and third.err.count("\n") == 1
    assert "has no block slack-webhook/nobody" in third.err
