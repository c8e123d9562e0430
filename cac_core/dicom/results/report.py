"""Structured report of a score: Comprehensive 3D SR by TID 1500, after IHE AI Results (AIR)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForMeasurementGroup,
    SourceImageForSegmentation,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cac_core.dicom.results import codes as own
from cac_core.dicom.results.segmentation import SEGMENTS, tracking_id
from cac_core.dicom.results.source import SourceSeries
from cac_core.dicom.results.stamp import ResultStamp

_Group = VolumetricROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations


def structured_report(
    source: SourceSeries, segments: Segmentation, stamp: ResultStamp
) -> Comprehensive3DSR:
    """The report of a scored study.

    Parameters
    ----------
    source : the scored images.
    segments : its SEG, which the measurements refer to.
    stamp : the score and its maker.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values of the header
        groups = _Groups(source, segments, stamp)
        content = MeasurementReport(
            observation_context=_observer(stamp),
            procedure_reported=own.CT_OF_CHEST,
            imaging_measurements=list(groups.all()),
            title=codes.DCM.ImagingMeasurementReport,
            # The library of highdicom describes single-frame images.
            referenced_images=list(source.images) if len(source.images) > 1 else None,
        )
        made = Comprehensive3DSR(
            evidence=[*source.images, segments],
            content=content,
            is_complete=True,
            is_final=not stamp.research,
            record_evidence=False,
            institution_name=stamp.institution,
            **stamp.equipment("sr"),
        )
    stamp.declare_scheme(made)
    stamp.finish(made, "sr", "Coronary calcium, score,")
    _fix_moments(made, stamp)
    return made


class _Groups:
    """The measurement groups: coronary calcium first, then other calcium and the heart."""

    def __init__(self, source: SourceSeries, segments: Segmentation, stamp: ResultStamp) -> None:
        self.source, self.segments, self.stamp = source, segments, stamp
        self.score = stamp.score
        self.numbers = {
            str(item.SegmentLabel): int(item.SegmentNumber) for item in segments.SegmentSequence
        }

    def all(self) -> Iterator[_Group]:
        """Every group that has something to say."""
        yield self._group(
            "coronary",
            own.CALCIFICATION,
            own.CORONARY_ARTERY,
            list(_coronary(self.score)),
            list(_evaluations(self.score, self.stamp.research)),
        )
        other = self.score["agatston_noncoronary"]
        if other:
            measured = _measured(own.OTHER_CALCIUM_SCORE, other, own.NO_UNITS, own.AGATSTON_METHOD)
            yield self._group("noncoronary", own.CALCIFICATION, own.HEART, [measured], [])
        volume = _measured(own.VOLUME, self.score["heart_volume_ml"], own.ML)
        yield self._group("heart", own.HEART, own.HEART, [volume], [])

    def _group(
        self,
        name: str,
        finding: Code,
        site: Code,
        measurements: Sequence[Measurement],
        evaluations: Sequence[QualitativeEvaluation],
    ) -> _Group:
        """A group about a segment (TID 1411); without one, about the images (TID 1501)."""
        common: dict[str, Any] = {
            "tracking_identifier": TrackingIdentifier(
                uid=self.stamp.uid(f"tracking-{name}"), identifier=tracking_id(name, self.stamp)
            ),
            "finding_type": finding,
            "finding_sites": [FindingSite(site)],
            "algorithm_id": self._algorithm(),
            "measurements": measurements,
            "qualitative_evaluations": evaluations,
        }
        label = next(kind.label for kind in SEGMENTS if kind.name == name)
        if label not in self.numbers:
            images = [SourceImageForMeasurementGroup.from_source_image(self.source.images[0])]
            return MeasurementsAndQualitativeEvaluations(**common, source_images=images)
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            **common, referenced_segment=self._referenced(self.numbers[label])
        )

    def _referenced(self, number: int) -> ReferencedSegment:
        images = self.source.images
        if len(images) == 1:
            return ReferencedSegment(
                sop_class_uid=self.segments.SOPClassUID,
                sop_instance_uid=self.segments.SOPInstanceUID,
                segment_number=number,
                source_images=[
                    SourceImageForSegmentation(images[0].SOPClassUID, images[0].SOPInstanceUID)
                ],
            )
        return ReferencedSegment(
            sop_class_uid=self.segments.SOPClassUID,
            sop_instance_uid=self.segments.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(str(images[0].SeriesInstanceUID)),
        )

    def _algorithm(self) -> AlgorithmIdentification:
        return self.stamp.algorithm_content()


def _coronary(score: Mapping[str, Any]) -> Iterator[Measurement]:
    yield _measured(own.CALCIUM_SCORE, score["agatston"], own.NO_UNITS, own.AGATSTON_METHOD)
    if score["agatston_low"] is not None:
        yield _measured(own.AGATSTON_LOW, score["agatston_low"], own.NO_UNITS, own.AGATSTON_METHOD)
        yield _measured(
            own.AGATSTON_HIGH, score["agatston_high"], own.NO_UNITS, own.AGATSTON_METHOD
        )
    yield _measured(own.CALCIUM_VOLUME, score["calcium_volume_mm3"], own.MM3, own.VOLUME_METHOD)
    if score["calcium_mass_mg"] is not None:
        yield _measured(own.CALCIUM_MASS, score["calcium_mass_mg"], own.MG, own.MASS_METHOD)


def _evaluations(score: Mapping[str, Any], research: bool) -> Iterator[QualitativeEvaluation]:
    category = own.agatston_category(str(score["cac_category"]))
    yield QualitativeEvaluation(own.ASSESSMENT_CATEGORY, category)
    for joined, name in (
        (score["quality_flags"], own.QUALITY_FLAG),
        (score["review_reasons"], own.REVIEW_REASON),
    ):
        found = [each for each in (joined or "").split(";") if each]
        for each in found:
            value = own.private(each, each.replace("_", " ").capitalize())
            yield QualitativeEvaluation(name, value)
        if not found:
            yield QualitativeEvaluation(name, own.NO_MARK)
    if research:
        yield QualitativeEvaluation(own.INTENDED_USE, own.RESEARCH_ONLY)


def _measured(name: Code, value: float, unit: Code, method: Code | None = None) -> Measurement:
    return Measurement(name=name, value=float(value), unit=unit, method=method)


def _observer(stamp: ResultStamp) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=stamp.uid("device"),
        name="cac",
        manufacturer_name=stamp.manufacturer,
        model_name=stamp.model_id,
        serial_number=stamp.keyring.fingerprint[:16],
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _fix_moments(report: Comprehensive3DSR, stamp: ResultStamp) -> None:
    """An observation has the time of the score, not of the export."""
    moment = f"{stamp.created:%Y%m%d%H%M%S}"

    def walk(items: Sequence[Any]) -> None:
        for item in items:
            if "ObservationDateTime" in item:
                item.ObservationDateTime = moment
            walk(item.get("ContentSequence", ()))

    walk([report])
