"""Scores to link or analyse (one model, one protocol), and identifiers of their studies."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from schemas.run import RUNS
from schemas.score import SCORES


def chosen_model(warehouse: Warehouse, wanted: str | None) -> str:
    """The model whose scores are used: the named one, or the only one.

    Raises
    ------
    CacError
        If the warehouse holds no scores.
    UsageError
        If the named model does not exist, or none is named and there are several.
    """
    models = warehouse.models()
    if not models:
        raise CacError(f"{warehouse.url} holds no scores.", "Score an archive first: `cac score`.")
    if wanted is None and len(models) == 1:
        return models[0]
    if wanted not in models:
        what = "several models" if wanted is None else f"no model {wanted}"
        raise UsageError(
            f"{warehouse.url} holds scores of {what}.",
            f"Name one with --model: {', '.join(models)}.",
        )
    return str(wanted)


def scores_of(store: Warehouse, model: str, protocol: str | None = None) -> pa.Table:
    """Score rows of a model under one protocol; a study has one row per protocol.

    Parameters
    ----------
    protocol : digest of the protocol to use if there are several; default: that of the model's
        newest run.

    Raises
    ------
    CacError
        If there are scores of several protocols, and none of this one.
    """
    scores = store.read(SCORES, model)
    digests = set(scores["protocol_digest"].to_pylist())
    if len(digests) < 2:
        return scores
    if protocol is None:
        runs = store.read(RUNS).sort_by("started_at").to_pylist()
        mine = [run["protocol_digest"] for run in runs if run["model_id"] == model]
        protocol = mine[-1] if mine else None
    if protocol not in digests:
        raise CacError(
            f"{store.url} holds scores of {model} under {len(digests)} protocols, and none under "
            "that of the settings.",
            "Name the settings file that the scores were made with: --config FILE.",
        )
    return scores.filter(pc.equal(scores["protocol_digest"], protocol))


def study_identifiers(instances: pa.Table) -> pa.Table:
    """Distinct values that the headers of each study give to match it to a patient.

    Returns
    -------
    Columns `study_key`, `accession_key`, `PatientSex`, `patient_birth_year`; a study has several
    rows where its headers differ.
    """
    columns = instances.select(["study_key", "accession_key", "PatientSex", "patient_birth_year"])
    known = columns.filter(pc.is_valid(columns["study_key"]))
    return known.group_by(known.column_names).aggregate([])
