"""DICOM Segmentation: one segment for each kidney and lesion, on the slices of the source series."""

from typing import Any, Literal

import highdicom as hd
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from renalseg.core.labels import KIDNEY, LABELS
from renalseg.core.notice import NOTICE
from renalseg.report.dicom.algorithm import MANUFACTURER, Algorithm
from renalseg.report.dicom.codes import ABNORMALITY, AI_FAMILY, ANATOMY, KIDNEY_SITE, SIDES, TYPES
from renalseg.report.dicom.segments import Segment, Segments
from renalseg.report.dicom.source import SourceSeries

SegKind = Literal["BINARY", "LABELMAP"]
SERIES_OFFSET = 1000
"""Added to the source's series number: results stand after the scanner's series. Our choice."""

_COLOURS = {label.id: label.colour for label in LABELS}


def build_seg(segments: Segments, source: SourceSeries, algorithm: Algorithm, kind: SegKind = "BINARY") -> Any:
    """The DICOM SEG of a case, not written yet.

    Args:
        segments: at least one.
        source: the series that the labels lie on.
        algorithm: what made them.
        kind: "BINARY", the usual one, or "LABELMAP", newer, compressed, and not read by older programs.

    Returns:
        A ``highdicom.seg.Segmentation`` in a series of its own, in the source's study and frame of reference. Its
        SOP and series UIDs are new each time; frames without labels are left out.

    Raises:
        InputError: the source's headers do not fit together.
    """
    descriptions = [_description(segment, algorithm) for segment in segments.items]
    planes = source.planes(segments.numbers)
    with source.accepted():
        seg = hd.seg.Segmentation(
            source_images=source.images,
            pixel_array=planes,
            segmentation_type=kind,
            segment_descriptions=descriptions,
            series_number=source.series_number + SERIES_OFFSET,
            content_label="RENALSEG",
            transfer_syntax_uid=RLELossless if kind == "LABELMAP" else ExplicitVRLittleEndian,
            content_description=NOTICE,
            series_description="renalseg: kidneys and lesions (research use only)",
            **algorithm.instance(),
        )
    source.restore_identity(seg)
    return seg


def _description(segment: Segment, algorithm: Algorithm) -> Any:
    is_kidney = segment.label == KIDNEY
    described = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.title,
        segmented_property_category=ANATOMY if is_kidney else ABNORMALITY,
        segmented_property_type=TYPES[segment.label],
        algorithm_type="AUTOMATIC",
        algorithm_identification=_identification(algorithm),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=None if is_kidney else [KIDNEY_SITE],
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[segment.label]),
    )
    if segment.side is not None:
        side = [hd.sr.CodedConcept.from_code(SIDES[segment.side])]
        if is_kidney:
            described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side
        else:
            described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
    return described


def _identification(algorithm: Algorithm) -> Any:
    return hd.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=AI_FAMILY,
        version=algorithm.version,
        source=MANUFACTURER,
        parameters=dict(algorithm.parameters),
    )
