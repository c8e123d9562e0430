"""Tags of the data elements that the header reader uses, by keyword (PS3.6).

A table of its own, because header readers start by the dozen and importing pydicom takes longer
than reading a batch of headers.
"""

from __future__ import annotations

MediaStorageSOPClassUID = 0x00020002
TransferSyntaxUID = 0x00020010
SpecificCharacterSet = 0x00080005
ImageType = 0x00080008
SOPClassUID = 0x00080016
SOPInstanceUID = 0x00080018
StudyDate = 0x00080020
SeriesDate = 0x00080021
AcquisitionDate = 0x00080022
ContentDate = 0x00080023
SeriesTime = 0x00080031
AcquisitionTime = 0x00080032
AccessionNumber = 0x00080050
Modality = 0x00080060
Manufacturer = 0x00080070
StudyDescription = 0x00081030
SeriesDescription = 0x0008103E
ManufacturerModelName = 0x00081090
PatientName = 0x00100010
PatientID = 0x00100020
PatientBirthDate = 0x00100030
PatientSex = 0x00100040
OtherPatientIDs = 0x00101000
OtherPatientNames = 0x00101001
PatientBirthName = 0x00101005
PatientMotherBirthName = 0x00101060
ResponsiblePerson = 0x00102297
ContrastBolusAgent = 0x00180010
ContrastBolusAgentSequence = 0x00180012
SliceThickness = 0x00180050
KVP = 0x00180060
ProtocolName = 0x00181030
TriggerTime = 0x00181060
NominalInterval = 0x00181062
ReconstructionDiameter = 0x00181100
GantryDetectorTilt = 0x00181120
XRayTubeCurrent = 0x00181151
Exposure = 0x00181152
ConvolutionKernel = 0x00181210
CardiacSynchronizationTechnique = 0x00189037
CardiacSynchronizationSequence = 0x00189118
CTAcquisitionTypeSequence = 0x00189301
CTAcquisitionDetailsSequence = 0x00189304
CTTableDynamicsSequence = 0x00189308
CTGeometrySequence = 0x00189312
CTReconstructionSequence = 0x00189314
ReconstructionFieldOfView = 0x00189317
CTExposureSequence = 0x00189321
CTXRayDetailsSequence = 0x00189325
CTImageFrameTypeSequence = 0x00189329
XRayTubeCurrentInmA = 0x00189330
ExposureInmAs = 0x00189332
StudyInstanceUID = 0x0020000D
SeriesInstanceUID = 0x0020000E
SeriesNumber = 0x00200011
AcquisitionNumber = 0x00200012
InstanceNumber = 0x00200013
ImagePositionPatient = 0x00200032
ImageOrientationPatient = 0x00200037
FrameOfReferenceUID = 0x00200052
FrameContentSequence = 0x00209111
PlanePositionSequence = 0x00209113
PlaneOrientationSequence = 0x00209116
UnassignedSharedConvertedAttributesSequence = 0x00209170
UnassignedPerFrameConvertedAttributesSequence = 0x00209171
NominalPercentageOfCardiacPhase = 0x00209241
SamplesPerPixel = 0x00280002
NumberOfFrames = 0x00280008
Rows = 0x00280010
Columns = 0x00280011
PixelSpacing = 0x00280030
BitsAllocated = 0x00280100
LossyImageCompression = 0x00282110
PixelMeasuresSequence = 0x00289110
SharedFunctionalGroupsSequence = 0x52009229
PerFrameFunctionalGroupsSequence = 0x52009230
FloatPixelData = 0x7FE00008
DoubleFloatPixelData = 0x7FE00009
PixelData = 0x7FE00010
Item = 0xFFFEE000
ItemDelimitationItem = 0xFFFEE00D
SequenceDelimitationItem = 0xFFFEE0DD


def by_keyword(*keywords: str) -> dict[str, int]:
    """Map keywords to their tags."""
    return {keyword: globals()[keyword] for keyword in keywords}
