"""The drawing of the networks: sizes are those of the manifest, and without one it says so."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from cac_core.model.convlstm import PUBLISHED, NetworkConfig
from cac_core.model.weights import verify_weights
from cac_core.report.cohort.architecture import architecture_section
from cac_core.report.cohort.report import Report, ReportFacts
from cac_core.report.cohort.shown_estimates import ShownEstimates
from schemas.results import ESTIMATES
from tests.builders.analyses import plan


def report(**facts: Any) -> Report:
    return Report(ShownEstimates(ESTIMATES.empty()), plan(), ReportFacts(pa.table({}), **facts))


def networks(*hearts: NetworkConfig, calcium: NetworkConfig) -> dict[str, Any]:
    named = {f"heart-{n}" if n > 1 else "heart": one for n, one in enumerate(hearts, 1)}
    return {
        name: {"config": one.as_manifest()} for name, one in (named | {"calcium": calcium}).items()
    }


def test_the_table_adds_up_to_the_parameters_of_the_manifest() -> None:
    manifest = verify_weights()
    made = report(networks=manifest.networks)
    section = architecture_section(made)
    assert section.gaps == []
    rows = made.tables["layers"].rows
    for name, shown in (("heart", "Heart"), ("calcium", "Calcium")):
        total = sum(int(str(row[-1]).replace(",", "")) for row in rows if row[1] == shown)
        assert total == manifest.networks[name]["parameters"]
        assert f"{total:,} parameters" in str(section.blocks[0].parts[0].text)
    assert "two networks" in str(section.blocks[0].parts[0].text)


@pytest.mark.parametrize("hearts", [1, 2, 4])
def test_other_networks_are_drawn_with_their_own_sizes(hearts: int) -> None:
    made = report(networks=networks(*[NetworkConfig(2)] * hearts, calcium=PUBLISHED))
    text = str(architecture_section(made).blocks[0].parts[0].text)
    assert {1: "one network", 2: "two networks", 4: "4 networks"}[hearts] in text
    svg, png = made.figures["figure-architecture"]
    assert svg.startswith(b"<?xml") and png.startswith(b"\x89PNG")
    names = [str(row[0]) for row in made.tables["layers"].rows]
    assert "dense block 2, layer 12" in names


def test_without_a_manifest_the_section_says_so() -> None:
    assert architecture_section(report()).gaps == [
        "the weights that scored this cohort are not installed"
    ]


def test_a_network_of_one_branch_is_reported() -> None:
    made = report(networks=networks(NetworkConfig(2), calcium=NetworkConfig(3)))
    made.facts.networks["calcium"]["config"]["branches"] = "single"
    assert architecture_section(made).gaps == [
        "Calcium: only the branch `single` of the drawing is used"
    ]
