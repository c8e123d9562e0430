"""The training plan: what it may contain, and what is rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.errors import UsageError
from cac_core.model.weights import verify_weights
from cac_core.training.plan import TrainingPlan, read_plan
from cac_core.training.settings import CALCIUM_SETTINGS, HEART_SETTINGS
from cac_core.training.table import read_training_table, split_digest
from cac_core.training.train import InitialWeights


def plan(folder: Path, text: str) -> TrainingPlan:
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    return read_plan(folder / "plan.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table = [", "cannot be read"),
        ("table = 't.csv'\nfolder = 'x'", r"unknown keys \(folder\) or lacks some \(out\)"),
        ("table = 't.csv'\nout = 'o'\n[heart]\nepochs = 3", r"unknown key in \[heart\]: epochs"),
        ("table = 't.csv'\nout = 'o'\n[heart]\nsteps = '3'", r"`heart\.steps` .* is '3', not int"),
        ("table = 't.csv'\nout = 'o'\nheart = 3", "`heart` in the training plan is no table"),
        ("table = 't'\nout = 'o'\nreaders = 'A'", "`readers` .* is 'A', not list"),
        ("table = 't'\nout = 'o'\n[heart]\nkeep = 'first'", "Unknown keep 'first'. Choose from"),
        ("table = 't'\nout = 'o'\nhearts = 'w'\n[heart]\nsteps = 3", "both trains heart networks"),
        ("table = 1\nout = 'o'", "`table` in the training plan is 1, not str"),
        ("table = 't'\nout = 'o'\nfavour_coronary = true", "`favour_coronary` .* not float"),
        ("table = 't'\nout = 'o'\n[heart]\nbegin_heart = 2", "one of several heart networks"),
        (
            "table = 't'\nout = 'o'\n[calcium]\nbegin = 'w'\nbegin_heart = 2",
            "one of several heart networks",
        ),
    ],
)
def test_plans_that_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(tmp_path, text)
    assert not (tmp_path / "o").exists()


def test_a_minimal_plan_has_the_defaults(tmp_path: Path) -> None:
    found = plan(tmp_path, "table = 't.csv'\nout = 'o'\nreaders = ['A']\n[calcium]\nsteps = 11\n")
    assert found.data.table == tmp_path / "t.csv"
    assert (found.readers, found.version, found.coronary_bias) == (("A",), "own", 0.0)
    assert [heart.settings for heart in found.hearts] == [HEART_SETTINGS]
    assert found.heart_runs() == [tmp_path / "o" / "heart"]
    assert found.calcium.settings.steps == 11
    assert found.calcium.settings.batch == CALCIUM_SETTINGS.batch
    assert found.calcium.initial is None and found.mean_with is None


def test_heart_networks_of_weights_can_be_kept(tmp_path: Path) -> None:
    found = plan(tmp_path, "table = 't.csv'\nout = 'o'\nhearts = 'w'\n")
    assert (found.hearts, found.heart_runs(), found.kept_hearts) == ((), [], tmp_path / "w")


def test_the_recipe_of_the_shipped_weights(tmp_path: Path) -> None:
    """Plan and table of docs/training.md are what the shipped manifest records."""
    docs = Path(__file__).parents[3] / "docs"
    text = (docs / "training.md").read_text(encoding="utf-8")
    (block,) = (part for part in text.split("```toml\n")[1:] if 'name = "s11"' in part)
    found = plan(tmp_path, block.split("```")[0])
    recorded = verify_weights().training["calcium"]
    stated = recorded["settings"]
    assert {key: getattr(found.calcium.settings, key) for key in stated} == stated
    assert found.calcium.initial == InitialWeights(tmp_path / "s10")
    assert recorded["data"]["begun_from"].startswith("convlstm-s10-")
    assert (found.kept_hearts, found.mean_with) == (tmp_path / "s10", None)
    assert found.version == verify_weights().version
    table = read_training_table(docs / "weights" / found.data.table.name)
    assert split_digest(table) == recorded["data"]["split_digest"]
