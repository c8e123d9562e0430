"""Scores as FHIR R4: a bundle per study with a DiagnosticReport and its Observations.

Patients and studies are logical references to their keys; no resource holds an identifier.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.codes import QualityFlag, ReviewReason

Resource = dict[str, Any]

SCT, DCM = "http://snomed.info/sct", "http://dicom.nema.org/resources/ontology/DCM"
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
#: Systems of keys and of codes for which no standard one is known.
PATIENT_KEYS, STUDY_KEYS = "urn:cac-cohort:patient-key", "urn:cac-cohort:study-key"
OWN_CODES = "urn:cac-cohort:codes"
RESEARCH_NOTE = "Research, not for diagnosis."
_IMAGING = "http://terminology.hl7.org/CodeSystem/observation-category"
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"


def study_bundle(score: Mapping[str, Any], model_id: str, *, research: bool = True) -> Resource:
    """The bundle of a scored study; the same row gives the same bundle.

    Parameters
    ----------
    score : row of `scores` with status `scored`.
    model_id : name of the model.
    research : mark the resources as preliminary and as research.
    """
    made = _Made(score, model_id, research)
    calcium, heart = made.calcium(), made.heart()
    resources = [made.report([calcium, heart]), calcium, heart]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": made.issued,
        "entry": [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in resources],
    }


class _Made:
    def __init__(self, score: Mapping[str, Any], model_id: str, research: bool) -> None:
        self.score, self.model_id, self.research = score, model_id, research
        self.issued = f"{score['scored_at']:%Y-%m-%dT%H:%M:%S}Z"

    def report(self, observations: list[Resource]) -> Resource:
        """The DiagnosticReport."""
        agatston, category = self.score["agatston"], self.score["cac_category"]
        mark = f" {RESEARCH_NOTE}" if self.research else ""
        return {
            **self._common("DiagnosticReport", "report"),
            "category": [_concept(_SECTION, "RAD", "Radiology")],
            "code": _concept(LOINC, "18748-4", "Diagnostic imaging study"),
            "result": [{"reference": f"urn:uuid:{each['id']}"} for each in observations],
            "imagingStudy": [self._study("ImagingStudy")],
            "conclusion": f"Agatston score {agatston:.1f}, category {category}.{mark}",
        }

    def calcium(self) -> Resource:
        """The Observation of the calcium, with its components."""
        return {
            **self._observation("calcium"),
            "code": _concept(SCT, "450360000", "Coronary artery calcium score"),
            "method": _concept(DCM, "112055", "Agatston scoring method"),
            "bodySite": _concept(SCT, "41801008", "Coronary artery"),
            "valueQuantity": _quantity(self.score["agatston"], "1"),
            "component": list(self._components()),
        }

    def heart(self) -> Resource:
        """The Observation of the volume of the heart."""
        return {
            **self._observation("heart"),
            "code": _concept(SCT, "118565006", "Volume"),
            "bodySite": _concept(SCT, "80891009", "Heart"),
            "valueQuantity": _quantity(self.score["heart_volume_ml"], "mL"),
        }

    def _components(self) -> Iterator[Resource]:
        score = self.score
        category = _concept(OWN_CODES, f"cac-{score['cac_category']}", str(score["cac_category"]))
        yield {
            "code": _concept(DCM, "111005", "Assessment Category"),
            "valueCodeableConcept": category,
        }
        for name, text in (
            ("agatston_low", "Lower limit of the 90 % interval"),
            ("agatston_high", "Upper limit of the 90 % interval"),
        ):
            if score[name] is not None:
                yield {
                    "code": _concept(OWN_CODES, name, text),
                    "valueQuantity": _quantity(score[name], "1"),
                }
        yield {
            "code": _concept(DCM, "122660", "Calcium Volume"),
            "valueQuantity": _quantity(score["calcium_volume_mm3"], "mm3"),
        }
        for joined, code, kind in (
            (score["quality_flags"], "quality-flag", QualityFlag),
            (score["review_reasons"], "review-reason", ReviewReason),
        ):
            for each in filter(None, (joined or "").split(";")):
                yield {
                    "code": _concept(OWN_CODES, code, code.replace("-", " ").capitalize()),
                    "valueCodeableConcept": _concept(OWN_CODES, each, kind(each).description),
                }

    def _observation(self, kind: str) -> Resource:
        made = {
            **self._common("Observation", kind),
            "category": [_concept(_IMAGING, "imaging", "Imaging")],
            "derivedFrom": [self._study("ImagingStudy")],
            "device": {"display": f"{self.model_id}, cac-cohort {self.score['core_version']}"},
        }
        if self.research:
            made["note"] = [{"text": RESEARCH_NOTE}]
        return made

    def _common(self, kind: str, name: str) -> Resource:
        names = ("study_key", "model_digest", "protocol_digest", "core_version", "pixel_digest")
        identity = "/".join(str(self.score[each]) for each in names)
        made: Resource = {
            "resourceType": kind,
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{OWN_CODES}/{name}/{identity}")),
            "status": "preliminary" if self.research else "final",
            "issued": self.issued,
        }
        if self.score["patient_key"]:
            key = {"system": PATIENT_KEYS, "value": self.score["patient_key"]}
            made["subject"] = {"type": "Patient", "identifier": key}
        if self.score["study_date"]:
            made["effectiveDateTime"] = f"{self.score['study_date']:%Y-%m-%d}"
        return made

    def _study(self, kind: str) -> Resource:
        key = {"system": STUDY_KEYS, "value": self.score["study_key"]}
        return {"type": kind, "identifier": key}


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _quantity(value: float, code: str) -> Resource:
    return {"value": value, "unit": code, "system": UCUM, "code": code}
