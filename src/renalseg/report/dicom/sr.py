"""DICOM SR: the measurements of each kidney and lesion, as TID 1500 groups that refer to the segments of a SEG."""

from collections.abc import Mapping
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset

from renalseg.core.labels import KIDNEY
from renalseg.core.notice import NOTICE
from renalseg.report.dicom.algorithm import MANUFACTURER, Algorithm
from renalseg.report.dicom.codes import (
    ABNORMALITY,
    ANATOMY,
    DEVICE,
    ENGLISH,
    KIDNEY_QUANTITIES,
    KIDNEY_SITE,
    LESION_QUANTITIES,
    PRIVATE,
    PROCEDURE,
    REPORT_TITLE,
    SIDES,
    TYPES,
    Quantity,
)
from renalseg.report.dicom.segments import Segment, Segments
from renalseg.report.dicom.source import SourceSeries

SERIES_OFFSET = 1001
"""Added to the source's series number: the series after the SEG's. Our choice."""

DIGITS = 3
"""Decimal places of a value: a micrometre, a thousandth of a ml or HU, far below what a scan resolves."""


def build_sr(segments: Segments, seg: Any, source: SourceSeries, algorithm: Algorithm) -> Any:
    """The DICOM SR of a case, not written yet: TID 1500 (PS3.16), a group for each kidney and lesion.

    Args:
        segments: the segments of ``seg``.
        seg: the DICOM SEG that ``build_seg`` made of them.
        source: the series that the labels lie on.
        algorithm: what made the labels and measured them.

    Returns:
        A ``highdicom.sr.ComprehensiveSR``, complete, preliminary and not verified by anyone, in a series of its own.

    Raises:
        InputError: the source's headers do not fit together.
    """
    measured = [segment for segment in segments.items if segment.measured is not None]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer(algorithm)),
        procedure_reported=PROCEDURE,
        imaging_measurements=[_group(segment, seg, source, algorithm) for segment in measured],
        title=REPORT_TITLE,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(ENGLISH),
    )
    with source.accepted():
        document = hd.sr.ComprehensiveSR(
            evidence=[*source.images, seg],
            content=report,
            series_number=source.series_number + SERIES_OFFSET,
            is_complete=True,
            series_description="renalseg: measurements (research use only)",
            **algorithm.instance(),
        )
    document.CodingSchemeIdentificationSequence = [_private_scheme()]
    source.restore_identity(document)
    return document


def _private_scheme() -> Dataset:
    """Whose codes those of ``codes.PRIVATE`` are."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = PRIVATE
    scheme.CodingSchemeName = "Measurement methods of renalseg"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme


def _observer(algorithm: Algorithm) -> Any:
    return hd.sr.ObserverContext(
        observer_type=DEVICE,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=algorithm.device_uid,
            name=f"{algorithm.name}. {NOTICE}",
            manufacturer_name=MANUFACTURER,
            model_name=algorithm.name,
        ),
    )


def _group(segment: Segment, seg: Any, source: SourceSeries, algorithm: Algorithm) -> Any:
    """The measurement group of one segment, TID 1411."""
    is_kidney = segment.label == KIDNEY
    side = None if segment.side is None else SIDES[segment.side]
    quantities = KIDNEY_QUANTITIES if is_kidney else LESION_QUANTITIES
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=segment.number,
            source_series=hd.sr.SourceSeriesForSegmentation(source.series_uid),
        ),
        finding_category=ANATOMY if is_kidney else ABNORMALITY,
        finding_type=TYPES[segment.label],
        finding_sites=[hd.sr.FindingSite(KIDNEY_SITE, laterality=side)],
        algorithm_id=_identification(algorithm),
        measurements=_measurements(segment.measured or {}, quantities),
    )


def _identification(algorithm: Algorithm) -> Any:
    return hd.sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=[f"{key}: {value}" for key, value in algorithm.parameters.items()],
    )


def _measurements(measured: Mapping[str, Any], quantities: tuple[Quantity, ...]) -> list[Any]:
    """The values that could be had, without the ends of diameters: TID 1411 allows no coordinates beside a segment."""
    values = [(quantity, quantity.value(measured)) for quantity in quantities]
    return [
        hd.sr.Measurement(
            name=quantity.name,
            value=round(value, DIGITS),
            unit=quantity.unit,
            derivation=quantity.derivation,
            method=quantity.method,
        )
        for quantity, value in values
        if value is not None
    ]
