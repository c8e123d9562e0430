"""The training deployment: what its plan may hold. The training itself: see test_cli.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.errors import UsageError
from flows import train_networks as module


def run(path: Path) -> dict[str, object]:
    return module.train_networks.fn(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table = [", "cannot be read"),
        ("table = 't.csv'\nfolder = 'x'", r"unknown keys \(folder\) or lacks some \(out\)"),
        ("table = 't.csv'\nout = 'o'\n[heart]\nepochs = 3", r"unknown key in \[heart\]"),
    ],
)
def test_plans_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "plan.toml")
    assert not (tmp_path / "o").exists()


def test_both_networks_then_the_weights(tmp_path: Path, monkeypatch) -> None:
    calls, told = [], []

    def train(kind, table, out, progress, **options):
        calls.append((kind, table, out, options["settings"].steps, options["readers"]))

    def ship(hearts, calcium, table, out, progress, **options):
        assert hearts == [tmp_path / "o" / "heart"]
        record = dict.fromkeys(
            ("training_samples", "steps_done", "best_step", "best_validation_loss", "seconds"), 7
        )
        return {"model": "m", "training": {"heart": record, "calcium": record}, "out": out}

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "ship", ship)
    monkeypatch.setattr(
        module, "create_markdown_artifact", lambda text, key: told.append((key, text))
    )
    (tmp_path / "plan.toml").write_text(
        "table = 't.csv'\nout = 'o'\nreaders = ['A']\n[calcium]\nsteps = 11\n", encoding="utf-8"
    )
    assert run(tmp_path / "plan.toml")["out"] == tmp_path / "o" / "weights"
    table = tmp_path / "t.csv"
    assert calls == [
        ("heart", table, tmp_path / "o" / "heart", 3000, ["A"]),
        ("calcium", table, tmp_path / "o" / "calcium", 11, ["A"]),
    ]
    assert told[0][0] == "training"
    assert "| steps_done | 7 | 7 |" in told[0][1]
