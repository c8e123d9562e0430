"""What all objects of a score share: UIDs, equipment, dates, and the mark of research.

Every value follows from the score and the secret of the site, so that a later run makes the same
bytes, and a PACS that holds the object gets no second one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from highdicom.sr import AlgorithmIdentification
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian

from cac_core.dicom.results.codes import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME
from cac_core.keys import Keyring
from cac_core.version import __version__

#: Enters every UID; raised when the same score would give another object.
OBJECTS_VERSION = "1"
#: Series numbers of the kinds, above those of scanners.
KINDS = {"seg": 9101, "sr": 9102, "page": 9103}
RESEARCH_MARK = "RESEARCH, NOT FOR DIAGNOSIS"
#: PS3.7 D.3.3.2: identifies the software that wrote the file; a UUID-derived UID of this program.
_IMPLEMENTATION = "2.25.267318441709219405372215341937461180"


@dataclass(frozen=True)
class ResultStamp:
    """The score that objects are made from, and who makes them.

    Parameters
    ----------
    keyring : derives the UIDs.
    series_uid : SeriesInstanceUID of the scored images.
    score : row of `scores`.
    model_id : name of the model.
    manufacturer, institution : of this installation.
    research : whether the objects are marked as research, not for diagnosis.
    """

    keyring: Keyring
    series_uid: str
    score: Mapping[str, Any]
    model_id: str
    manufacturer: str = "cac-cohort"
    institution: str | None = None
    research: bool = True

    def uid(self, kind: str) -> str:
        """UID of this kind for this score: of an instance, a series, a tracked finding."""
        digests = (str(self.score[name]) for name in _IDENTITY)
        mark = "research" if self.research else "clinical"
        return self.keyring.result_uid(OBJECTS_VERSION, mark, kind, self.series_uid, *digests)

    @property
    def created(self) -> dt.datetime:
        """When the score was made, to the second."""
        moment: dt.datetime = self.score["scored_at"]
        return moment.replace(microsecond=0, tzinfo=None)

    @property
    def parameters(self) -> dict[str, str]:
        """What the algorithm was run with."""
        return {
            "model_digest": str(self.score["model_digest"]),
            "protocol_digest": str(self.score["protocol_digest"]),
            "threshold_hu": f"{self.score['threshold_hu']:g}",
        }

    def described(self, what: str) -> str:
        """A description of a series or document, with the mark of research (VR LO)."""
        return f"{what} {RESEARCH_MARK}" if self.research else what

    def equipment(self, kind: str) -> dict[str, Any]:
        """Arguments of highdicom's constructors that say who made the object."""
        return {
            "series_instance_uid": self.uid(f"series-{kind}"),
            "series_number": KINDS[kind],
            "sop_instance_uid": self.uid(kind),
            "instance_number": 1,
            "manufacturer": self.manufacturer,
            "manufacturer_model_name": "cac",
            "device_serial_number": self.keyring.fingerprint[:16],
            "software_versions": (__version__, self.model_id),
            "contributing_equipment": [self._contribution()],
        }

    def _contribution(self) -> ContributingEquipment:
        return ContributingEquipment(
            self.manufacturer,
            codes.DCM.ProcessingEquipment,
            manufacturer_model_name=self.model_id,
            software_versions=(__version__, self.model_id),
            device_serial_number=str(self.score["model_digest"])[:16],
            contribution_datetime=self.created,
            contribution_description=self.described("Coronary calcium score,"),
        )

    def algorithm(self) -> AlgorithmIdentificationSequence:
        """The algorithm, for a segment."""
        return AlgorithmIdentificationSequence(
            name=self.model_id,
            family=codes.cid7162.ArtificialIntelligence,
            version=__version__,
            source=self.manufacturer,
            parameters=self.parameters,
        )

    def algorithm_content(self) -> AlgorithmIdentification:
        """The algorithm, for a measurement group (TID 4019)."""
        return AlgorithmIdentification(
            name=self.model_id,
            version=__version__,
            parameters=[f"{name}={value}" for name, value in self.parameters.items()],
        )

    def finish(self, dataset: Dataset, kind: str, description: str) -> Dataset:
        """Replace what depends on the moment or on chance, and add what all objects have."""
        date, time = f"{self.created:%Y%m%d}", f"{self.created:%H%M%S}"
        for name in ("InstanceCreation", "Series", "Content"):
            setattr(dataset, f"{name}Date", date)
            setattr(dataset, f"{name}Time", time)
        dataset.SeriesDescription = self.described(description)
        if self.institution:
            dataset.InstitutionName = self.institution
        organization = self.uid(f"dimensions-{kind}")
        for item in dataset.get("DimensionOrganizationSequence", ()):
            item.DimensionOrganizationUID = organization
        for item in dataset.get("DimensionIndexSequence", ()):
            item.DimensionOrganizationUID = organization
        for item in dataset.ContributingEquipmentSequence:
            if "highdicom" in str(item.get("Manufacturer", "")).lower():
                item.ContributionDateTime = f"{date}{time}"
        dataset.file_meta = _meta(dataset)
        return dataset

    @staticmethod
    def declare_scheme(dataset: Dataset) -> None:
        """Declare the private coding scheme (PS3.3 C.12.1, CodingSchemeIdentificationSequence)."""
        scheme = Dataset()
        scheme.CodingSchemeDesignator = PRIVATE_SCHEME
        scheme.CodingSchemeName = PRIVATE_SCHEME_NAME
        scheme.CodingSchemeResponsibleOrganization = "cac-cohort"
        dataset.CodingSchemeIdentificationSequence = [scheme]


_IDENTITY = ("model_digest", "protocol_digest", "core_version", "pixel_digest")


def _meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = f"CAC_{__version__}"[:16]
    return meta
