"""DICOM SEG: every labelled voxel on the slice and pixel it was found in, with the right codes and identity."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from renalseg.core.errors import InputError
from renalseg.report.dicom import DicomCase, write_dicom, write_seg
from renalseg.report.dicom.segments import find_segments

OBLIQUE = (0.936293364, 0.275095847, -0.218350663, -0.289629478, 0.956425086, -0.036957013)
TILTED = {
    "orientation": (1.0, 0.0, 0.0, 0.0, float(np.cos(0.2)), float(np.sin(0.2))),
    "step": np.array([0.0, 0.0, 20.0]),
}
ORIENTATIONS = {
    "axial": {},
    "descending": {"step": np.array([0.0, 0.0, -20.0])},
    "oblique": {"orientation": OBLIQUE},
    "sagittal": {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
    "coronal": {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
    "prone": {"orientation": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
    "tilted gantry": TILTED,
}


def values_under(path, objects):
    """For each segment number the CT values under it, looked up in the very objects that the frames refer to.

    All values of the synthetic series differ, so equal sets mean equal voxels; no geometry enters.
    """
    seg = pydicom.dcmread(path)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found = {}
    for frame, mask in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        source = objects[reference.ReferencedSOPInstanceUID]
        values = source.pixel_array
        if values.ndim == 3:
            values = values[int(reference.ReferencedFrameNumber) - 1]
        elif "ImagePositionPatient" in source:
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-6)
        if seg.SegmentationType == "LABELMAP":
            pairs = [(int(n), mask == n) for n in np.unique(mask[mask > 0])]
        else:
            pairs = [(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, mask == 1)]
        for number, where in pairs:
            found.setdefault(number, set()).update((values[where].astype(int) - 1024).tolist())
    return found


def values_expected(drawn):
    numbers = find_segments(drawn.case.labels, drawn.case.measurements, "1.2").numbers.array
    return {n: set(drawn.ct.array[numbers == n].tolist()) for n in range(1, int(numbers.max()) + 1)}


@pytest.mark.parametrize("options", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_labels_land_on_the_pixels_they_were_found_in(options, make_case, tmp_path):
    drawn = make_case(**options)
    write_seg(drawn.case, tmp_path / "out.dcm")
    expected = values_expected(drawn)
    assert len(expected) == 5
    assert values_under(tmp_path / "out.dcm", drawn.objects) == expected


def test_a_label_map_segmentation_holds_the_same(make_case, tmp_path):
    drawn = make_case(**ORIENTATIONS["oblique"])
    write_seg(drawn.case, tmp_path / "out.dcm", "LABELMAP")
    assert pydicom.dcmread(tmp_path / "out.dcm").SegmentationType == "LABELMAP"
    assert values_under(tmp_path / "out.dcm", drawn.objects) == values_expected(drawn)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("options", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_highdicom_reads_the_same_segments(options, kind, make_case, tmp_path):
    drawn = make_case(**options)
    write_seg(drawn.case, tmp_path / "out.dcm", kind)
    seg = hd.seg.segread(tmp_path / "out.dcm")
    series = sorted(drawn.objects.values(), key=lambda o: o.InstanceNumber)
    array = seg.get_pixels_by_source_instance([o.SOPInstanceUID for o in series], combine_segments=True)
    hu = np.stack([o.pixel_array.astype(int) - 1024 for o in series])
    expected = np.zeros(hu.shape, int)
    for number, values in values_expected(drawn).items():
        expected[np.isin(hu, list(values))] = number
    np.testing.assert_array_equal(array, expected)


def test_repeated_slices_are_left_out(make_case, tmp_path):
    drawn = make_case()
    first = next(o for o in drawn.objects.values() if o.InstanceNumber == 3)
    again = pydicom.dcmread(first.filename)
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    again.save_as(drawn.case.source / "again.dcm")
    objects = {**drawn.objects, "1.2.3.4.5": again}
    write_seg(drawn.case, tmp_path / "out.dcm")
    assert values_under(tmp_path / "out.dcm", objects) == values_expected(drawn)
    referenced = pydicom.dcmread(tmp_path / "out.dcm").ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(referenced) == 6


def _item(**tags) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def enhanced(drawn, order):
    """The series as one enhanced multi-frame object, its frames in ``order``."""
    series = sorted(drawn.objects.values(), key=lambda o: o.InstanceNumber)
    data = pydicom.dcmread(series[0].filename)
    positions = [[float(v) for v in series[k].ImagePositionPatient] for k in order]
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    data.NumberOfFrames, data.PixelData = len(order), b"".join(series[k].PixelData for k in order)
    shared = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=data.ImageOrientationPatient)],
        PixelMeasuresSequence=[_item(PixelSpacing=data.PixelSpacing, SliceThickness=20)],
        PixelValueTransformationSequence=[_item(RescaleSlope=1, RescaleIntercept=-1024)],
    )
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(data, keyword)
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=position)]) for position in positions
    ]
    return data


def test_enhanced_multi_frame_objects_are_referred_to_by_frame(make_case, tmp_path):
    drawn = make_case()
    data = enhanced(drawn, [2, 0, 1, 3, 5, 4])
    (tmp_path / "one").mkdir()
    data.save_as(tmp_path / "one" / "all.dcm")
    case = DicomCase(drawn.case.labels, drawn.case.measurements, tmp_path / "one")
    write_seg(case, tmp_path / "out.dcm")
    assert values_under(tmp_path / "out.dcm", {str(data.SOPInstanceUID): data}) == values_expected(drawn)


def test_several_multi_frame_objects_are_refused(make_case, tmp_path):
    drawn = make_case()
    (tmp_path / "two").mkdir()
    for name, order in {"a": [0, 1, 2], "b": [3, 4, 5]}.items():
        data = enhanced(drawn, order)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        data.save_as(tmp_path / "two" / f"{name}.dcm")
    case = DicomCase(drawn.case.labels, drawn.case.measurements, tmp_path / "two")
    with pytest.raises(InputError, match="2 multi-frame objects"):
        write_seg(case, tmp_path / "out.dcm")


def test_segments_have_their_codes_sides_and_names(written):
    segments = list(written[1].SegmentSequence)

    def codes(segment):
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        region = segment.get("AnatomicRegionSequence")
        side = region[0].get("AnatomicRegionModifierSequence") if region else None
        side = side or kind.get("SegmentedPropertyTypeModifierCodeSequence")
        return (
            segment.SegmentLabel,
            segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue,
            kind.CodeValue,
            region[0].CodeValue if region else None,
            side[0].CodeValue if side else None,
        )

    assert [codes(segment) for segment in segments] == [
        ("Right kidney", "91723000", "64033007", None, "24028007"),
        ("Left kidney", "91723000", "64033007", None, "7771000"),
        ("Tumor 1, right kidney", "49755003", "108369006", "64033007", "24028007"),
        ("Cyst 2, left kidney", "49755003", "367643001", "64033007", "7771000"),
        ("Tumor fragments, not measured", "49755003", "108369006", "64033007", None),
    ]
    assert len({s.TrackingUID for s in segments}) == len({s.TrackingID for s in segments}) == 5
    assert segments[2].TrackingID == "renalseg tumor 1"


def test_the_algorithm_and_the_notice_are_stated(written):
    case, seg, _ = written
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("renalseg", "9.8.7")
    assert case.record["weights_sha256"] in algorithm.AlgorithmParameters
    assert "Research use only. Not a medical device." in algorithm.AlgorithmParameters
    assert seg.ContentDescription == "Research use only. Not a medical device."
    assert (seg.SoftwareVersions, seg.DeviceSerialNumber) == ("9.8.7", case.record["weights_sha256"])


def test_without_a_record_the_weights_are_unknown(make_case, tmp_path):
    case = make_case().case
    write_seg(DicomCase(case.labels, case.measurements, case.source), tmp_path / "out.dcm")
    seg = pydicom.dcmread(tmp_path / "out.dcm")
    assert seg.DeviceSerialNumber == "unknown"
    assert "weights" not in seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


def test_uids_of_objects_are_new_and_tracking_uids_stay(make_case, tmp_path):
    drawn = make_case()
    first, second = (write_dicom(drawn.case, tmp_path / name) for name in ("a", "b"))
    a, b = (pydicom.dcmread(paths[0]) for paths in (first, second))
    source = next(iter(drawn.objects.values()))
    assert a.SOPInstanceUID != b.SOPInstanceUID
    assert len({a.SeriesInstanceUID, b.SeriesInstanceUID, source.SeriesInstanceUID}) == 3
    assert [s.TrackingUID for s in a.SegmentSequence] == [s.TrackingUID for s in b.SegmentSequence]
    assert a.StudyInstanceUID == source.StudyInstanceUID
    assert a.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert a.SeriesNumber == 1004


def test_other_voxels_or_another_series_have_other_tracking_uids(make_case):
    case = make_case().case
    one, other = (find_segments(case.labels, case.measurements, uid).items for uid in ("1.2", "1.3"))
    assert not {s.tracking_uid for s in one} & {s.tracking_uid for s in other}
    array = case.labels.array.copy()
    array[1, 1, 0] = 0
    smaller = find_segments(case.labels.with_array(array), case.measurements, "1.2").items
    assert [a.tracking_uid == b.tracking_uid for a, b in zip(one, smaller, strict=True)] == [False, *[True] * 4]


def test_no_label_no_segmentation(make_case, tmp_path):
    case = make_case().case
    empty = DicomCase(case.labels.with_array(case.labels.array * 0), {"kidneys": [], "lesions": []}, case.source)
    assert write_dicom(empty, tmp_path / "out") == ()
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(InputError, match="has no label"):
        write_seg(empty, tmp_path / "out.dcm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["lesions"][0].update(voxels=5), "there is no tumor 1"),
        (lambda m: m["lesions"][1]["box_zyx"].update(stop=[5, 5, 99]), "there is no cyst 2"),
        (lambda m: m["kidneys"].pop(), "they lack the left kidney"),
    ],
    ids=["voxels", "box", "kidney"],
)
def test_measurements_of_other_labels_are_refused(change, message, make_case, tmp_path):
    case = make_case().case
    change(case.measurements)
    with pytest.raises(InputError, match=message):
        write_dicom(case, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
