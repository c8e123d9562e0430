"""What follows a job ends as it ends, and never ends the job before it."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow

from cac_core.errors import CacError
from flows.runtime.states import follow
from flows.summaries import ScoringSummary
from tests.flows.runtime.test_states import summary_of


@flow(name="follower")
def follower(config: str) -> None:
    """Runs only inside of a flow."""


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("completed", "Completed"), ("over_budget", "OverBudget"), (None, "Failed"), (1, "Failed")],
)
def test_the_end_of_a_follower_is_told(outcome: Any, state: str) -> None:
    def plain(config: str) -> ScoringSummary:
        assert config == "cac.toml"
        if outcome is None:
            raise CacError("The mapping is not there.")
        if outcome == 1:
            raise ValueError("unexpected")
        return summary_of(outcome)

    assert follow(follower, plain, config="cac.toml") == {"follower": state}
