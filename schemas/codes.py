"""Machine-readable codes: study status, reasons, quality flags, lesion classes, categories.

A failure is a row. Each member below is written verbatim into the `reason` or
`quality_flags` column of a table; its `description` goes into the data dictionary.
Renaming a member changes published data: add, do not rename.
"""

from __future__ import annotations

from enum import StrEnum


class DescribedCode(StrEnum):
    """A string enum whose members carry a one-line description for people."""

    description: str

    def __new__(cls, value: str, description: str = "") -> DescribedCode:
        """Make a member from its value and description."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


class Status(DescribedCode):
    """What became of one study."""

    SCORED = "scored", "an Agatston score was computed"
    REJECTED = "rejected", "the study cannot be scored soundly; `reason` says why"
    FAILED = "failed", "scoring broke off; the study is tried again by `cac retry`"


class FileReason(DescribedCode):
    """Why a file of the archive contributes no instance."""

    EMPTY_FILE = "empty_file", "the file has zero bytes"
    NOT_DICOM = "not_dicom", "the file is not a DICOM Part 10 file or data set"
    TRUNCATED = "truncated", "the file ends inside its header or its pixel data"
    UNREADABLE_HEADER = "unreadable_header", "the header breaks the DICOM encoding rules"
    HEADER_LIMITS = "header_limits", "the header exceeds the limits on size, depth, items or time"
    NO_PERMISSION = "no_permission", "the operating system refused to open or read the file"
    VANISHED = "vanished", "the file was listed but could not be opened any more"
    SYMLINK_LOOP = "symlink_loop", "a symbolic link that leads back into its own path"
    DICOMDIR = "dicomdir", "a media directory record, not an image"
    MISSING_STUDY_UID = "missing_study_uid", "StudyInstanceUID is absent or empty"
    MISSING_SERIES_UID = "missing_series_uid", "SeriesInstanceUID is absent or empty"
    MISSING_SOP_UID = "missing_sop_uid", "SOPInstanceUID or SOPClassUID is absent or empty"
    DUPLICATE_INSTANCE = "duplicate_instance", "another file holds the same SOPInstanceUID"


class SeriesReason(DescribedCode):
    """Why a series of a study was not chosen as its CTAC series."""

    UNUSABLE_FILES = "unusable_files", "files lack UIDs or have a header that cannot be read"
    NOT_CT = "not_ct", "Modality is not CT"
    NOT_CT_IMAGE = "not_ct_image", "SOP class is neither CT nor Enhanced CT Image Storage"
    LOCALIZER = "localizer", "ImageType or description marks a localizer (scout, topogram)"
    DERIVED = "derived", "a reformat, fused, captured or otherwise derived series"
    NOT_AXIAL = "not_axial", "ImageType or orientation says the slices are not axial"
    CONTRAST_AGENT = "contrast_agent", "the header names a contrast agent"
    KVP_OUT_OF_RANGE = "kvp_out_of_range", "KVP lies outside the accepted range"
    TOO_FEW_SLICES = "too_few_slices", "fewer slices than the rule table asks for"
    COVERAGE_TOO_SHORT = "coverage_too_short", "the slices cover too little along the axis"
    FIELD_OF_VIEW_TOO_SMALL = "field_of_view_too_small", "reconstruction diameter is too small"
    GATED_CARDIAC = "gated_cardiac", "an ECG-gated or dedicated cardiac (calcium, CTA) scan"
    EXCLUDED_DESCRIPTION = "excluded_description", "the description matches an excluding pattern"
    EXCLUDED_KERNEL = "excluded_kernel", "a lung, bone or edge-enhancing reconstruction kernel"
    NO_CTAC_EVIDENCE = "no_ctac_evidence", "nothing marks it as CTAC and the rules ask for a mark"
    OUTRANKED = "outranked", "a plausible CTAC series, but another of the study ranks higher"


class StudyReason(DescribedCode):
    """Why a study carries no score."""

    NO_CT_SERIES = "no_ct_series", "the study holds no CT series"
    NO_CTAC_SERIES = "no_ctac_series", "the study holds CT, but no series passes the CTAC rules"
    SEVERAL_PATIENTS = "several_patients", "files of the study name more than one patient"
    CONFLICTING_COPIES = (
        "conflicting_copies",
        "files with one SOPInstanceUID hold different pixels or geometry",
    )
    MISSING_POSITION = "missing_position", "a slice lacks ImagePositionPatient"
    MISSING_ORIENTATION = "missing_orientation", "a slice lacks ImageOrientationPatient"
    MISSING_PIXEL_SPACING = "missing_pixel_spacing", "PixelSpacing is absent, zero or negative"
    MISSING_RESCALE = "missing_rescale", "RescaleSlope or RescaleIntercept is absent or unusable"
    NOT_HOUNSFIELD = "not_hounsfield", "RescaleType or the photometric rule says: not HU"
    INVALID_GEOMETRY = "invalid_geometry", "orientation or position values are not usable numbers"
    IMPLAUSIBLE_GEOMETRY = (
        "implausible_geometry",
        "a slice increment, pixel spacing or field of view that no CT scanner makes",
    )
    NOT_AXIAL_ORIENTATION = "not_axial_orientation", "the slice normal is not the body axis"
    MIXED_ORIENTATION = "mixed_orientation", "slices of different orientation in one series"
    MIXED_MATRIX = "mixed_matrix", "slices of different Rows, Columns or PixelSpacing"
    MIXED_ACQUISITIONS = "mixed_acquisitions", "two acquisitions or frames of reference mixed"
    GANTRY_TILT = "gantry_tilt", "the positions run oblique to the slice normal"
    DUPLICATE_POSITIONS = "duplicate_positions", "two different slices at one position"
    MISSING_SLICES = "missing_slices", "one or more slices are missing inside the series"
    UNEVEN_SPACING = "uneven_spacing", "the slice positions do not lie on a regular grid"
    TOO_FEW_SLICES = "too_few_slices", "too few readable slices for a volume"
    TOO_LARGE = "too_large", "declared size exceeds the limits on pixels, frames or bytes"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax", "no decoder for this syntax"
    PIXEL_HEADER_MISMATCH = (
        "pixel_header_mismatch",
        "code stream or pixel data contradict Rows x Columns",
    )
    TRUNCATED_PIXEL_DATA = "truncated_pixel_data", "pixel data are shorter than the header says"
    DECODE_FAILED = "decode_failed", "the decoder refused the pixel data"
    UNREADABLE_FILE = "unreadable_file", "a chosen file could not be read any more"
    FILES_CHANGED = "files_changed", "a chosen file changed between index and scoring"
    CONTRAST_ENHANCED = "contrast_enhanced", "the blood pool is as bright as contrast medium"
    NO_HEART = "no_heart", "the heart network found no plausible heart"
    TIMEOUT = "timeout", "scoring took longer than the limit per study"
    WORKER_DIED = "worker_died", "the worker process died on this study, alone, more than once"
    OUT_OF_MEMORY = "out_of_memory", "the study needed more memory than the limit per worker"
    INTERNAL_ERROR = (
        "internal_error",
        "an error in this program; `detail` names the exception class",
    )


class RowReason(DescribedCode):
    """Why a row of a registry extract is in quarantine."""

    UNREADABLE_LINE = "unreadable_line", "the line has too few or too many fields, or is cut short"
    BLANK_LINE = "blank_line", "the line is empty"
    MISSING_VALUE = "missing_value", "a value that the table needs is empty"
    UNPARSED_DATE = "unparsed_date", "the text fits no date format of the mapping"
    UNPARSED_NUMBER = "unparsed_number", "the text is no number"
    UNMAPPED_CODE = "unmapped_code", "the code is neither ours nor in the mapping's codes"
    OUT_OF_RANGE = "out_of_range", "the value is outside what the column allows"
    DATE_ORDER = "date_order", "discharge or procedure before admission, or a date in the future"
    BEFORE_BIRTH = "before_birth", "the record is older than the patient"
    AFTER_DEATH = "after_death", "the record begins after the patient's death"
    AFTER_COVERAGE = "after_coverage", "the record begins after the registry's coverage ends"
    BEFORE_COVERAGE = "before_coverage", "the record begins before the registry's coverage begins"
    CONFLICTING_ROWS = "conflicting_rows", "rows of one patient (and day) contradict each other"
    CONFLICTING_MATCH = "conflicting_match", "accession number and patient name different studies"
    SHARED_ACCESSION = "shared_accession", "the accession number is that of several patients"
    ACCESSION_OUTSIDE_WINDOW = (
        "accession_outside_window",
        "the study of this accession number is too far from the row's date",
    )
    AMBIGUOUS_MATCH = "ambiguous_match", "several studies or several rows fit equally well"
    SEX_DIFFERS = "sex_differs", "rows of the patient, or row and scan, give different sexes"
    BIRTH_YEAR_DIFFERS = (
        "birth_year_differs",
        "rows of the patient, or row and scan, give different years of birth",
    )


class FlowStep(DescribedCode):
    """Where a patient left the cohort, in this order, or that it is in the analysis."""

    NO_CLINICAL_RECORD = "no_clinical_record", "scanned, but not in the clinical table"
    NO_CTAC_STUDY = "no_ctac_study", "in the clinical table, but no CTAC study near that date"
    NO_SCORE = "no_score", "the CTAC study has no score; the table `scores` says why"
    NO_STUDY_DATE = "no_study_date", "the scan has no date, so that no follow-up begins"
    KNOWN_CAD = "known_cad", "infarction or revascularisation at or before the scan"
    MISSING_COVARIATE = "missing_covariate", "a covariate that the plan needs is missing"
    CONFLICTING_DEATH = "conflicting_death", "death records contradict each other"
    NO_FOLLOW_UP = "no_follow_up", "coverage ends, or the patient died or left, by the scan's day"
    INCLUDED = "included", "in the analysis"


class QualityFlag(DescribedCode):
    """A property of a scored volume that a reader of the score should know."""

    LOSSY_COMPRESSION = "lossy_compression", "the pixels were once lossily compressed"
    KVP_NOT_120 = "kvp_not_120", "KVP differs from 120 and the 130 HU threshold was kept"
    KVP_THRESHOLD_ADJUSTED = "kvp_threshold_adjusted", "threshold taken from the kVp table"
    MISSING_KVP = "missing_kvp", "KVP is absent; 120 assumed"
    MISSING_KERNEL = "missing_kernel", "ConvolutionKernel is absent"
    THICK_SLICES = "thick_slices", "slice increment above 5 mm"
    OVERLAPPING_SLICES = "overlapping_slices", "SliceThickness exceeds the slice increment"
    GAPPED_SLICES = "gapped_slices", "SliceThickness is below the slice increment"
    DUPLICATE_SLICES_DROPPED = "duplicate_slices_dropped", "identical slices were merged"
    PADDING_REPLACED = "padding_replaced", "padding pixels were set to air"
    INSTANCE_NUMBER_GAP = "instance_number_gap", "InstanceNumber has a gap at an end"
    SPACING_ATTRIBUTE_MISMATCH = (
        "spacing_attribute_mismatch",
        "header spacing contradicts positions",
    )
    MIXED_PIXEL_REPRESENTATION = "mixed_pixel_representation", "signed and unsigned slices mixed"
    MISSING_RESCALE_TYPE = "missing_rescale_type", "RescaleType is absent; HU assumed (CT default)"
    IMPLAUSIBLE_HU = "implausible_hu", "air or soft tissue is far from its expected HU"
    NO_CTAC_EVIDENCE = "no_ctac_evidence", "nothing in the header marks the series as CTAC"
    SEVERAL_CTAC_SERIES = "several_ctac_series", "the study holds more than one CTAC candidate"
    INCOMPLETE_HEADER = "incomplete_header", "attributes used for selection are missing"
    PATIENT_ID_INCOMPLETE = (
        "patient_id_incomplete",
        "files of the scored series lack PatientID; other files of the study name the patient",
    )
    STUDY_DATE_REPAIRED = (
        "study_date_repaired",
        "StudyDate was not written as DICOM asks (dashes, dots or a time)",
    )
    STUDY_DATE_FROM_SERIES = (
        "study_date_from_series",
        "no usable StudyDate; SeriesDate, AcquisitionDate or ContentDate was taken",
    )
    SEVERAL_STUDY_DATES = "several_study_dates", "files of the study name different dates"
    DECIMAL_COMMA = "decimal_comma", "numbers of the header are written with a decimal comma"
    STRAY_IMAGES_SET_ASIDE = (
        "stray_images_set_aside",
        "a localizer, capture or repeated slice among the slices was left out",
    )
    REPEATED_SOP_INSTANCE_UID = (
        "repeated_sop_instance_uid",
        "different slices carry one SOPInstanceUID",
    )
    SEVERAL_FRAMES_OF_REFERENCE = (
        "several_frames_of_reference",
        "every slice names a frame of reference of its own; the positions make one grid",
    )
    UNSPECIFIED_RESCALE_TYPE = (
        "unspecified_rescale_type",
        "RescaleType is US (unspecified); air and soft tissue have the values of HU",
    )
    ORIENTATION_CONTRADICTS_HEADER = (
        "orientation_contradicts_header",
        "the anatomy lies upside down or back to front against what the header says",
    )
    MIRRORED_OR_SITUS_INVERSUS = (
        "mirrored_or_situs_inversus",
        "heart and liver lie on the other side: a mirrored picture, or situs inversus",
    )
    HEART_ON_THE_RIGHT = (
        "heart_on_the_right",
        "the heart lies on the right: dextrocardia, or a mirrored picture without the liver",
    )
    HIGH_NOISE = "high_noise", "noise in the heart exceeds the limit"
    HEART_TRUNCATED = "heart_truncated", "the heart touches the first or last slice"
    HEART_VOLUME_UNUSUAL = "heart_volume_unusual", "heart volume outside the usual range"


class CalciumClass(DescribedCode):
    """Class of a calcified lesion, as the calcium network separates them."""

    CORONARY = "coronary", "coronary artery calcification"
    NONCORONARY = "noncoronary", "calcification of valves, aorta, pericardium or other"


class PreviewChoice(DescribedCode):
    """Why a slice of a scored volume was kept as a picture."""

    CORONARY = "coronary", "one of the four slices with most coronary calcium"
    NONCORONARY = "noncoronary", "one of the two slices with most other calcium; no coronary there"
    MID_HEART = "mid_heart", "middle of the heart; the study has no coronary calcium"


#: Agatston categories as the paper words them, in order; see `cac_core.categories`.
CAC_CATEGORIES: tuple[str, ...] = ("0", "1-100", "101-400", ">400")
