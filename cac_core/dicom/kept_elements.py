"""The elements that a de-identified copy keeps, and what happens to their values.

A list of what stays, not of what goes: an element that is not here is dropped, whether it is
private, unknown, or standard. Tests compare it with the table of the basic profile (PS3.15 E.1-1).
"""

from __future__ import annotations

#: UIDs that name an instance, series, study or frame of reference: replaced (action U).
UIDS = frozenset(
    (
        *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
        *("ReferencedSOPInstanceUID", "DimensionOrganizationUID", "ConcatenationUID"),
    )
)
#: Dates and moments: shifted by the secret offset of the patient (option 113107).
DATES = frozenset(
    (
        *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime"),
        *("FrameAcquisitionDateTime", "FrameReferenceDateTime"),
    )
)
#: Times of the day: kept, since dates are shifted by whole days.
TIMES = frozenset(("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"))
#: Texts: taken from the index, where words that name nobody are left (option 113105).
TEXTS = frozenset(
    (
        *("StudyDescription", "SeriesDescription", "ProtocolName", "Manufacturer"),
        *("ManufacturerModelName", "ConvolutionKernel", "ImageType"),
    )
)
#: Codes: kept if the value is one of these.
CODES = {
    "Modality": frozenset(("CT", "NM", "PT")),
    "PhotometricInterpretation": frozenset(("MONOCHROME1", "MONOCHROME2")),
    "PatientPosition": frozenset(("HFS", "HFP", "HFDL", "HFDR", "FFS", "FFP", "FFDL", "FFDR")),
    "RescaleType": frozenset(("HU", "US", "HU_MOD")),
    "LossyImageCompression": frozenset(("00", "01")),
    "BurnedInAnnotation": frozenset(("NO",)),
    "RotationDirection": frozenset(("CW", "CC")),
    "ScanOptions": frozenset(("HELICAL MODE", "AXIAL MODE", "HELIX", "AXIAL", "SURVIEW")),
    "PresentationLUTShape": frozenset(("IDENTITY", "INVERSE")),
    "Units": frozenset(("BQML", "CNTS", "PROPCPS", "GML", "CPS")),
    "CorrectedImage": frozenset(
        ("DECY", "ATTN", "SCAT", "DTIM", "MOTN", "NORM", "RADL", "UNIF", "LIN", "PMOT")
    ),
    "DecayCorrection": frozenset(("NONE", "START", "ADMIN")),
    "SeriesType": frozenset(("STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "IMAGE", "REPROJECTION")),
    "VolumetricProperties": frozenset(("VOLUME", "MIXED", "SAMPLED", "DISTORTED")),
    "PixelPresentation": frozenset(("MONOCHROME",)),
    "VolumeBasedCalculationTechnique": frozenset(("NONE",)),
    "BodyPartExamined": frozenset(("CHEST", "HEART", "THORAX", "CHESTABDOMEN")),
}
#: Numbers: kept if they are numbers.
NUMBERS = frozenset(
    (
        *("SeriesNumber", "AcquisitionNumber", "InstanceNumber", "NumberOfFrames"),
        *("SliceThickness", "SpacingBetweenSlices", "KVP", "XRayTubeCurrent", "Exposure"),
        *("ExposureTime", "ReconstructionDiameter", "DataCollectionDiameter", "TableHeight"),
        *("GantryDetectorTilt", "DistanceSourceToDetector", "DistanceSourceToPatient"),
        *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "PixelSpacing"),
        *("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
        *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
        *("SmallestImagePixelValue", "LargestImagePixelValue"),
        *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
        *("LossyImageCompressionRatio", "TriggerTime", "NominalInterval"),
        *("XRayTubeCurrentInmA", "ExposureInmAs", "ReconstructionFieldOfView"),
        *("NumberOfSlices", "NumberOfTimeSlices", "NumberOfDetectors", "NumberOfRotations"),
        *("NumberOfEnergyWindows", "NumberOfRRIntervals", "NumberOfTimeSlots", "ImageIndex"),
        *("EnergyWindowVector", "DetectorVector", "RotationVector", "SliceVector"),
        *("RRIntervalVector", "TimeSlotVector", "TimeSliceVector", "ActualFrameDuration"),
        *("EnergyWindowLowerLimit", "EnergyWindowUpperLimit", "CountsAccumulated"),
        *("FrameAcquisitionNumber", "InStackPositionNumber", "TemporalPositionIndex"),
        *("DimensionIndexValues", "FrameReferenceTime", "DecayFactor"),
    )
)
#: UIDs of the standard itself: kept if they begin as those do. Tags are kept as they are.
STANDARD_UIDS = frozenset(("SOPClassUID", "ReferencedSOPClassUID"))
TAGS = frozenset(("DimensionIndexPointer", "FunctionalGroupPointer", "FrameIncrementPointer"))
#: Sequences: their items are treated alike.
SEQUENCES = frozenset(
    (
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
        *("PixelValueTransformationSequence", "FrameContentSequence", "FrameVOILUTSequence"),
        *("CTExposureSequence", "CTReconstructionSequence", "CTXRayDetailsSequence"),
        *("CTAcquisitionDetailsSequence", "CTImageFrameTypeSequence", "CTGeometrySequence"),
        *("UnassignedSharedConvertedAttributesSequence", "DimensionIndexSequence"),
        *("DimensionOrganizationSequence", "EnergyWindowInformationSequence"),
        *("EnergyWindowRangeSequence", "DetectorInformationSequence"),
    )
)
#: Type 2 attributes of patient and study: empty.
EMPTY = (
    *("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "AccessionNumber", "StudyID"),
)
