"""The page of a study as an Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from cac_core.dicom.results.source import SourceSeries
from cac_core.dicom.results.stamp import KINDS, ResultStamp
from cac_core.version import __version__

_PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"
_PATIENT_AND_STUDY = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
    *("ReferringPhysicianName", "IssuerOfPatientID"),
)
_MOST_REFERENCES = 2000


def encapsulated_pdf(pdf: bytes, source: SourceSeries, stamp: ResultStamp) -> Dataset:
    """The page of a study as a document in the study of its images.

    Parameters
    ----------
    pdf : the page.
    source : the scored images.
    stamp : the score and its maker.
    """
    image, made = source.images[0], Dataset()
    for name in _PATIENT_AND_STUDY:
        if name in image:
            made[name] = image[name]
    own = stamp.equipment("page")
    made.SOPClassUID = _PDF_CLASS
    made.SOPInstanceUID = own["sop_instance_uid"]
    made.SeriesInstanceUID = own["series_instance_uid"]
    made.SeriesNumber, made.InstanceNumber = KINDS["page"], 1
    made.Modality, made.ConversionType = "DOC", "WSD"
    made.Manufacturer = stamp.manufacturer
    made.ManufacturerModelName = "cac"
    made.DeviceSerialNumber = own["device_serial_number"]
    made.SoftwareVersions = [__version__, stamp.model_id]
    made.ContributingEquipmentSequence = own["contributing_equipment"]
    made.AcquisitionDateTime = None
    made.BurnedInAnnotation = "NO"  # the page holds keys, no identifiers
    made.DocumentTitle = stamp.described("Coronary calcium,")
    made.ConceptNameCodeSequence = []
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(pdf)
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    made.SourceInstanceSequence = [_reference(each) for each in source.images[:_MOST_REFERENCES]]
    return stamp.finish(made, "page", "Coronary calcium, page,")


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item
