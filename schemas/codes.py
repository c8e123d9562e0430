"""Machine-readable codes: study status, reasons, quality flags, lesion classes, categories.

Every failure is a row. The values below are written into the `reason`, `quality_flags` or
`review_reasons` column of a table; their descriptions go into the data dictionary. Renaming a value
changes published data: add values, do not rename them.
"""

from __future__ import annotations

from enum import StrEnum


class DescribedCode(StrEnum):
    """A string enum whose members have a one-line description."""

    description: str

    def __new__(cls, value: str, description: str = "") -> DescribedCode:
        """Create a member from value and description."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


class Status(DescribedCode):
    """Outcome of scoring one study."""

    SCORED = "scored", "an Agatston score was computed"
    REJECTED = "rejected", "the data do not allow a valid score"
    FAILED = "failed", "scoring failed; `cac retry` scores the study again"


class FileReason(DescribedCode):
    """Why a file of the archive is not a usable instance."""

    EMPTY_FILE = "empty_file", "the file has zero bytes"
    NOT_DICOM = "not_dicom", "the file is not a DICOM Part 10 file or data set"
    TRUNCATED = "truncated", "the file ends inside its header or its pixel data"
    UNREADABLE_HEADER = "unreadable_header", "the header violates the DICOM encoding rules"
    HEADER_LIMITS = "header_limits", "the header exceeds the limits on size, depth, items or time"
    NO_PERMISSION = "no_permission", "the operating system denied access to the file"
    VANISHED = "vanished", "the file was listed but no longer exists"
    SYMLINK_LOOP = "symlink_loop", "a symbolic link that points back into its own path"
    DICOMDIR = "dicomdir", "a media directory record, not an image"
    MISSING_STUDY_UID = "missing_study_uid", "StudyInstanceUID is absent or empty"
    MISSING_SERIES_UID = "missing_series_uid", "SeriesInstanceUID is absent or empty"
    MISSING_SOP_UID = "missing_sop_uid", "SOPInstanceUID or SOPClassUID is absent or empty"
    FORGOTTEN = "forgotten", "a file of a patient who was withdrawn (`cac forget`)"
    OUTSIDE_MEDIUM = (
        "outside_medium",
        "a DICOMDIR or archive names a place outside of itself, or a link; it is not read",
    )
    NOT_RETRIEVED = "not_retrieved", "the PACS did not give the headers of the study"
    UNREADABLE_MEDIUM = "unreadable_medium", "a zip or tar archive is damaged or encrypted"
    MEDIUM_LIMITS = (
        "medium_limits",
        "a zip or tar archive exceeds the limits on members, sizes or compression",
    )
    DUPLICATE_INSTANCE = "duplicate_instance", "another file holds the same SOPInstanceUID"


class SeriesReason(DescribedCode):
    """Why a series was not selected as the CTAC series of its study."""

    UNUSABLE_FILES = "unusable_files", "files without UIDs or with an unreadable header"
    NOT_CT = "not_ct", "Modality is not CT"
    NOT_CT_IMAGE = "not_ct_image", "SOP class is neither CT nor Enhanced CT Image Storage"
    LOCALIZER = "localizer", "ImageType or description marks a localizer (scout, topogram)"
    DERIVED = "derived", "a reformatted, fused, captured or otherwise derived series"
    NOT_AXIAL = "not_axial", "the slices are not axial by ImageType or orientation"
    CONTRAST_AGENT = "contrast_agent", "the header names a contrast agent"
    KVP_OUT_OF_RANGE = "kvp_out_of_range", "KVP lies outside the accepted range"
    TOO_FEW_SLICES = "too_few_slices", "fewer slices than the rules require"
    COVERAGE_TOO_SHORT = "coverage_too_short", "the slices cover too short a range"
    FIELD_OF_VIEW_TOO_SMALL = "field_of_view_too_small", "reconstruction diameter is too small"
    GATED_CARDIAC = "gated_cardiac", "an ECG-gated or dedicated cardiac (calcium, CTA) scan"
    EXCLUDED_DESCRIPTION = "excluded_description", "the description matches an excluding pattern"
    EXCLUDED_KERNEL = "excluded_kernel", "a lung, bone or edge-enhancing reconstruction kernel"
    NO_CTAC_EVIDENCE = "no_ctac_evidence", "no mark of CTAC, which the rules require"
    OUTRANKED = "outranked", "a plausible CTAC series, but another one ranks higher"


class StudyReason(DescribedCode):
    """Why a study has no score."""

    NO_CT_SERIES = "no_ct_series", "the study has no CT series"
    NO_CTAC_SERIES = "no_ctac_series", "the study has CT series, but none passes the CTAC rules"
    SEVERAL_PATIENTS = "several_patients", "files of the study name more than one patient"
    CONFLICTING_COPIES = (
        "conflicting_copies",
        "files with the same SOPInstanceUID differ in pixels or geometry",
    )
    MISSING_POSITION = "missing_position", "a slice lacks ImagePositionPatient"
    MISSING_ORIENTATION = "missing_orientation", "a slice lacks ImageOrientationPatient"
    MISSING_PIXEL_SPACING = "missing_pixel_spacing", "PixelSpacing is absent, zero or negative"
    MISSING_RESCALE = "missing_rescale", "RescaleSlope or RescaleIntercept is absent or unusable"
    NOT_HOUNSFIELD = "not_hounsfield", "RescaleType or PhotometricInterpretation is not that of HU"
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
    DUPLICATE_POSITIONS = "duplicate_positions", "different slices at the same position"
    MISSING_SLICES = "missing_slices", "slices are missing within the series"
    UNEVEN_SPACING = "uneven_spacing", "the slice positions do not lie on a regular grid"
    TOO_FEW_SLICES = "too_few_slices", "too few readable slices for a volume"
    TOO_LARGE = "too_large", "the declared size exceeds the limits on pixels, frames or bytes"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax", "no decoder for this syntax"
    PIXEL_HEADER_MISMATCH = (
        "pixel_header_mismatch",
        "code stream or pixel data contradict the header",
    )
    TRUNCATED_PIXEL_DATA = "truncated_pixel_data", "pixel data are shorter than declared"
    DECODE_FAILED = "decode_failed", "the decoder could not decode the pixel data"
    DECODER_DIED = (
        "decoder_died",
        "the decoder process ended, or exceeded its time or memory, on a compressed frame",
    )
    UNREADABLE_FILE = "unreadable_file", "a selected file could not be read"
    ARCHIVE_UNAVAILABLE = (
        "archive_unavailable",
        "the archive was away (drive gone or not answering); the next run tries again by itself",
    )
    NOT_RETRIEVED = (
        "not_retrieved",
        "the PACS did not deliver the series whole; the next run tries again by itself",
    )
    FILES_CHANGED = "files_changed", "a selected file changed between index and scoring"
    CONTRAST_ENHANCED = "contrast_enhanced", "the blood pool has the HU of contrast medium"
    NO_HEART = "no_heart", "the heart network found no plausible heart"
    TIMEOUT = "timeout", "scoring exceeded the time limit per study"
    WORKER_DIED = (
        "worker_died",
        "the worker process, or the whole run, died repeatedly on this study alone",
    )
    OUT_OF_MEMORY = "out_of_memory", "the study exceeded the memory limit per study"
    INTERNAL_ERROR = (
        "internal_error",
        "an error in this program; `detail` names the exception class",
    )


class RowReason(DescribedCode):
    """Why a row of a registry extract is in quarantine."""

    UNREADABLE_LINE = "unreadable_line", "the line has too few or too many fields, or is truncated"
    BLANK_LINE = "blank_line", "the line is empty"
    MISSING_VALUE = "missing_value", "a required value is empty"
    UNPARSED_DATE = "unparsed_date", "the text matches no date format of the mapping"
    UNPARSED_NUMBER = "unparsed_number", "the text is not a number"
    UNMAPPED_CODE = "unmapped_code", "the code is neither standard nor in the mapping"
    OUT_OF_RANGE = "out_of_range", "the value is outside the range of the column"
    DATE_ORDER = "date_order", "discharge or procedure before admission, or a date in the future"
    BEFORE_BIRTH = "before_birth", "the record is dated before the birth of the patient"
    AFTER_DEATH = "after_death", "the record begins after the death of the patient"
    AFTER_COVERAGE = "after_coverage", "the record begins after the coverage of the registry"
    BEFORE_COVERAGE = (
        "before_coverage",
        "the record begins before the coverage of the registry begins",
    )
    CONFLICTING_ROWS = "conflicting_rows", "rows of one patient (and day) contradict each other"
    CONFLICTING_MATCH = (
        "conflicting_match",
        "accession number and patient match different studies",
    )
    SHARED_ACCESSION = "shared_accession", "several patients have this accession number"
    ACCESSION_OUTSIDE_WINDOW = (
        "accession_outside_window",
        "the study of this accession number is too far from the row's date",
    )
    AMBIGUOUS_MATCH = "ambiguous_match", "several studies or rows match equally well"
    SEX_DIFFERS = "sex_differs", "rows of the patient, or row and scan, give different sexes"
    BIRTH_YEAR_DIFFERS = (
        "birth_year_differs",
        "rows of the patient, or row and scan, give different years of birth",
    )


class FlowStep(DescribedCode):
    """Step at which a patient is excluded from the cohort, in order, or `included`."""

    NO_CLINICAL_RECORD = "no_clinical_record", "scanned, but not in the clinical table"
    NO_CTAC_STUDY = "no_ctac_study", "in the clinical table, but no CTAC study near that date"
    NO_SCORE = "no_score", "the CTAC study has no score"
    NO_STUDY_DATE = "no_study_date", "the scan has no date, so follow-up has no start"
    KNOWN_CAD = "known_cad", "infarction or revascularisation at or before the scan"
    MISSING_COVARIATE = "missing_covariate", "a covariate of the plan is missing"
    CONFLICTING_DEATH = "conflicting_death", "death records contradict each other"
    NO_FOLLOW_UP = (
        "no_follow_up",
        "no follow-up after the scan (coverage, life or membership ended on or before its day)",
    )
    INCLUDED = "included", "in the analysis"


class QualityFlag(DescribedCode):
    """A property of a scored volume that matters for interpreting its score."""

    LOSSY_COMPRESSION = "lossy_compression", "the pixels were once lossily compressed"
    KVP_NOT_120 = (
        "kvp_not_120",
        "tube voltage (KVP) is not 120 kV; the 130 HU threshold was kept",
    )
    KVP_THRESHOLD_ADJUSTED = "kvp_threshold_adjusted", "threshold taken from the kVp table"
    MISSING_KVP = "missing_kvp", "KVP is absent; 120 assumed"
    MISSING_KERNEL = "missing_kernel", "ConvolutionKernel is absent"
    THICK_SLICES = "thick_slices", "slice increment above 5 mm"
    OVERLAPPING_SLICES = "overlapping_slices", "SliceThickness exceeds the slice increment"
    GAPPED_SLICES = "gapped_slices", "SliceThickness is below the slice increment"
    DUPLICATE_SLICES_DROPPED = "duplicate_slices_dropped", "identical slices were merged"
    PADDING_REPLACED = "padding_replaced", "padding pixels were set to air"
    INSTANCE_NUMBER_GAP = "instance_number_gap", "InstanceNumber has a gap or does not start at 1"
    SPACING_ATTRIBUTE_MISMATCH = (
        "spacing_attribute_mismatch",
        "SpacingBetweenSlices contradicts the positions",
    )
    MIXED_PIXEL_REPRESENTATION = (
        "mixed_pixel_representation",
        "signed and unsigned slices are mixed",
    )
    MISSING_RESCALE_TYPE = "missing_rescale_type", "RescaleType is absent; HU assumed (CT default)"
    IMPLAUSIBLE_HU = "implausible_hu", "air or soft tissue is not at its expected HU"
    NO_CTAC_EVIDENCE = "no_ctac_evidence", "nothing in the header marks the series as CTAC"
    SEVERAL_CTAC_SERIES = "several_ctac_series", "the study has more than one CTAC candidate"
    INCOMPLETE_HEADER = "incomplete_header", "attributes used for selection are missing"
    PATIENT_ID_INCOMPLETE = (
        "patient_id_incomplete",
        "files of the scored series lack PatientID; it is known from other files of the study",
    )
    STUDY_DATE_REPAIRED = (
        "study_date_repaired",
        "StudyDate is not in DICOM form (dashes, dots or a time)",
    )
    STUDY_DATE_FROM_SERIES = (
        "study_date_from_series",
        "no usable StudyDate; SeriesDate, AcquisitionDate or ContentDate is used",
    )
    SEVERAL_STUDY_DATES = "several_study_dates", "files of the study have different dates"
    DECIMAL_COMMA = "decimal_comma", "numbers in the header have a decimal comma"
    STRAY_IMAGES_SET_ASIDE = (
        "stray_images_set_aside",
        "a localizer, capture or repeated slice was excluded",
    )
    REPEATED_SOP_INSTANCE_UID = (
        "repeated_sop_instance_uid",
        "different slices have the same SOPInstanceUID",
    )
    SEVERAL_FRAMES_OF_REFERENCE = (
        "several_frames_of_reference",
        "every slice has its own frame of reference; the positions form one grid",
    )
    UNSPECIFIED_RESCALE_TYPE = (
        "unspecified_rescale_type",
        "RescaleType is US (unspecified); air and soft tissue have the values of HU",
    )
    ORIENTATION_CONTRADICTS_HEADER = (
        "orientation_contradicts_header",
        "the anatomy is upside down or back to front compared with the header",
    )
    MIRRORED_OR_SITUS_INVERSUS = (
        "mirrored_or_situs_inversus",
        "heart and liver are on the opposite side: a mirrored image, or situs inversus",
    )
    HEART_ON_THE_RIGHT = (
        "heart_on_the_right",
        "the heart is on the right: dextrocardia, or a mirrored image without the liver",
    )
    CONTRAST_UNCERTAIN = (
        "contrast_uncertain",
        "tissue between the lungs is as bright as contrast medium, blood in the heart is not",
    )
    HIGH_NOISE = "high_noise", "noise in the heart exceeds the limit"
    HEART_TRUNCATED = "heart_truncated", "the heart touches a border of the volume"
    HEART_VOLUME_UNUSUAL = "heart_volume_unusual", "heart volume is outside the usual range"


class ReviewReason(DescribedCode):
    """Why a person should look at a score."""

    BORDERLINE_CATEGORY = "borderline_category", "no category is likely enough"
    DOUBTFUL_COMPONENT = (
        "doubtful_component",
        "the category depends on one calcification of doubtful class",
    )
    HEART_MASK_ODD = (
        "heart_mask_odd",
        "shape, size or place of the heart mask is not that of a heart",
    )
    HEARTS_DISAGREE = "hearts_disagree", "the heart networks found different hearts"
    DEVICE = "device", "metal in the heart or near it: a lead, stent, valve or clip"
    MOTION = (
        "motion",
        "a large faint area as bright as calcium in the heart: motion or a streak, rarely a plaque",
    )
    MUCH_OTHER_CALCIUM = (
        "much_other_calcium",
        "so much other calcium in the heart that the category would change if it were coronary",
    )
    HEART_ON_THE_RIGHT = (
        "heart_on_the_right",
        "heart or liver on the opposite side: dextrocardia, or a mirrored image",
    )
    ORIENTATION_CONTRADICTS_HEADER = (
        "orientation_contradicts_header",
        "the anatomy is upside down or back to front compared with the header",
    )


class CalciumClass(DescribedCode):
    """Class of a calcified lesion, from the calcium network."""

    CORONARY = "coronary", "coronary artery calcification"
    NONCORONARY = "noncoronary", "calcification of valves, aorta, pericardium or other"


class CalciumSite(DescribedCode):
    """Where a calcification lies, as a reader names it; the sites are those of the paper."""

    CORONARY = "coronary", "coronary artery, vessel not named"
    LM = "lm", "left main"
    LAD = "lad", "left anterior descending"
    LCX = "lcx", "left circumflex"
    RCA = "rca", "right coronary artery"
    NONCORONARY = "noncoronary", "outside the coronary arteries, site not named"
    MITRAL_VALVE = "mitral_valve", "mitral valve"
    AORTIC_VALVE = "aortic_valve", "aortic valve"
    TRICUSPID_VALVE = "tricuspid_valve", "tricuspid valve"
    PULMONARY_VALVE = "pulmonary_valve", "pulmonary valve"
    ASCENDING_AORTA = "ascending_aorta", "ascending aorta"
    AORTIC_ARCH = "aortic_arch", "aortic arch"
    DESCENDING_AORTA = "descending_aorta", "descending aorta"
    PERICARDIUM = "pericardium", "pericardium"


class DiscrepancyCause(DescribedCode):
    """Why the model was wrong, as a reader says; those of the paper's supplement."""

    NOISE = "noise", "image noise"
    VALVE = "valve", "confusion with calcium of a valve"
    AORTA = "aorta", "confusion with calcium of the aorta"
    PACING_DEVICE = "pacing_device", "confusion with a pacing device"
    PERICARDIUM = "pericardium", "calcified pericardium"
    LYMPH_NODE = "lymph_node", "calcified lymph node"
    OTHER = "other", "another cause"


class ReadingKind(DescribedCode):
    """How a signed reading came about."""

    READING = "reading", "without sight of any other reading"
    REPEAT = "repeat", "again by the same reader, without sight of the first"
    CORRECTION = "correction", "the reader's own earlier reading, corrected"
    ADJUDICATION = "adjudication", "by a third reader, with sight of the two that differ"


class DeliveryOutcome(DescribedCode):
    """What became of the DICOM objects of a study that were to be sent."""

    SENT = "sent", "the receiver has stored them, or held them already"
    NOT_SENT = "not_sent", "the receiver did not take them; the next night tries again"
    NOT_MADE = "not_made", "they could not be made, or a validator found an error"


class PreviewChoice(DescribedCode):
    """Why an image of a slice is kept."""

    CORONARY = "coronary", "one of the four slices with the most coronary calcium"
    NONCORONARY = (
        "noncoronary",
        "one of the two slices with the most non-coronary calcium",
    )
    MID_HEART = "mid_heart", "middle slice of the heart; no coronary calcium"


#: Categories of the Agatston score, in order; see `cac_core.categories`.
CAC_CATEGORIES: tuple[str, ...] = ("0", "1-100", "101-400", ">400")
