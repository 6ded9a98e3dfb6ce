"""DICOM SR: the measurements, their units and codes, and the segments they refer to."""

import highdicom as hd
import numpy as np
import pydicom
import pytest

from renalseg.core.errors import InputError
from renalseg.report.dicom import DicomCase, write_dicom, write_seg, write_sr
from renalseg.report.dicom.codes import LESION_QUANTITIES


def values(group):
    return {
        (m.name.meaning, m.derivation.meaning if m.derivation else None, m.unit.value): float(m.value)
        for m in group.get_measurements()
    }


def test_values_units_and_codes_of_lesions(written):
    case, _, sr = written
    tumor, cyst = sr.content.get_volumetric_roi_measurement_groups()[2:]
    lesion = case.measurements["lesions"][0]
    sizes = {
        ("Volume", None, "cm3"): round(lesion["volume_ml"], 3),
        ("Long axis", "Maximum", "mm"): 11.25,
        ("Diameter", "Maximum", "mm"): 24.123,
        ("Length", None, "mm"): 40.0,
    }
    hu = {
        ("Attenuation Coefficient", "Mean", "[hnsf'U]"): 33.25,
        ("Attenuation Coefficient", "Standard Deviation", "[hnsf'U]"): 11.5,
    }
    assert values(tumor) == sizes | hu
    assert values(cyst) == sizes, "without a CT there is no HU"
    assert len(sizes | hu) == len(LESION_QUANTITIES)


def test_methods_tell_the_diameters_apart(written):
    _, _, sr = written
    tumor = sr.content.get_volumetric_roi_measurement_groups()[2]
    methods = {m.name.meaning: m.method.value for m in tumor.get_measurements() if m.method}
    assert methods == {
        "Volume": "YEKZ",
        "Long axis": "axial-diameter",
        "Diameter": "diameter-3d",
        "Length": "craniocaudal",
    }
    assert sr.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99RENALSEG"


def test_kidneys_have_the_values_of_their_parenchyma(written):
    case, _, sr = written
    groups = sr.content.get_volumetric_roi_measurement_groups()
    for group, kidney in zip(groups, case.measurements["kidneys"], strict=False):
        volume = round(kidney["volumes_ml"]["parenchyma"], 3)
        assert values(group) == {("Volume", None, "cm3"): volume, ("Length", None, "mm"): 80.0}


def test_findings_and_sites(written):
    _, _, sr = written
    groups = sr.content.get_volumetric_roi_measurement_groups()
    found = [
        (
            g.finding_category.value,
            g.finding_type.value,
            g.finding_sites[0].value.value,
            g.finding_sites[0].laterality.value,
        )
        for g in groups
    ]
    assert found == [
        ("91723000", "64033007", "64033007", "24028007"),
        ("91723000", "64033007", "64033007", "7771000"),
        ("49755003", "108369006", "64033007", "24028007"),
        ("49755003", "367643001", "64033007", "7771000"),
    ]


def test_groups_refer_to_the_segments_of_the_seg_and_share_their_tracking(written):
    _, seg, sr = written
    groups = sr.content.get_volumetric_roi_measurement_groups()
    segments = {s.SegmentNumber: s for s in seg.SegmentSequence}
    assert len(groups) == 4, "fragments are not measured"
    for group in groups:
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        segment = segments[reference.referenced_segment_numbers[0]]
        assert (group.tracking_uid, group.tracking_identifier) == (segment.TrackingUID, segment.TrackingID)
        assert reference.source_series_for_segmentation.value == seg.ReferencedSeriesSequence[0].SeriesInstanceUID


def test_evidence_is_the_seg(written):
    _, seg, sr = written
    named = {
        item.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert seg.SOPInstanceUID in named


def test_the_notice_and_the_state_of_the_document(written):
    case, _, sr = written
    texts = {element.value for element in sr.iterall() if element.keyword == "TextValue"}
    assert "notice: Research use only. Not a medical device." in texts
    assert "renalseg. Research use only. Not a medical device." in texts, "the observer's name"
    assert f"weights_sha256: {case.record['weights_sha256']}" in texts
    assert (sr.PreliminaryFlag, sr.VerificationFlag, sr.CompletionFlag) == ("PRELIMINARY", "UNVERIFIED", "COMPLETE")
    assert sr.SeriesNumber == 1005


def test_fused_kidneys_are_bilateral(make_case, tmp_path):
    case = make_case(pixel_spacing=(8.0, 18.0)).case
    labels = case.labels.with_array((case.labels.array > 0).astype(np.uint8))
    labels.array[2, 2, :] = 1  # a bridge
    ml = float(labels.array.sum()) * labels.voxel_mm3 / 1000
    kidney = {"side": "both", "volumes_ml": {"parenchyma": ml}, "length_mm": 80.0}
    fused = DicomCase(labels, {"kidneys": [kidney], "lesions": []}, case.source)
    seg, sr = write_dicom(fused, tmp_path / "out")
    (group,) = hd.sr.srread(sr).content.get_volumetric_roi_measurement_groups()
    assert group.finding_sites[0].laterality.value == "51440002"
    assert pydicom.dcmread(seg).SegmentSequence[0].SegmentLabel == "Both kidneys"


def test_an_sr_for_a_seg_written_before(make_case, tmp_path):
    case = make_case().case
    write_seg(case, tmp_path / "a.dcm")
    write_sr(case, tmp_path / "a.dcm", tmp_path / "b.dcm")
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    groups = hd.sr.srread(tmp_path / "b.dcm").content.get_volumetric_roi_measurement_groups()
    assert {g.referenced_segment.referenced_sop_instance_uid for g in groups} == {seg.SOPInstanceUID}


def test_an_sr_for_a_seg_of_other_labels_is_refused(make_case, tmp_path):
    case = make_case().case
    write_seg(case, tmp_path / "a.dcm")
    array = case.labels.array.copy()
    array[1, 1, 0] = 0
    other = DicomCase(case.labels.with_array(array), case.measurements, case.source)
    with pytest.raises(InputError, match=r"a\.dcm is no DICOM SEG of these labels"):
        write_sr(other, tmp_path / "a.dcm", tmp_path / "b.dcm")
    with pytest.raises(InputError, match="cannot be read as DICOM"):
        write_sr(other, tmp_path / "missing.dcm", tmp_path / "b.dcm")
    assert not (tmp_path / "b.dcm").exists()
