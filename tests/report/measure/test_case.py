"""``measure`` on kidneys whose truth is known: half an ellipsoid each, with a sinus carved out of the medial side.

A kidney is 52 mm wide, 48 deep and 100 long; lesions are balls. Tolerances are those of voxels of 2 to 4 mm.
"""

import importlib.util
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel.orientations as nio
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renalseg.core.errors import GeometryError, InputError
from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Grid, Volume
from renalseg.report.measure import lesion_mask, measure, schema
from renalseg.report.measure.lesions import SMALLEST_LESION_ML

_spec = importlib.util.spec_from_file_location("measure_conftest", Path(__file__).with_name("conftest.py"))
shapes_of = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shapes_of)
ball, canonical, ellipsoid = shapes_of.ball, shapes_of.canonical, shapes_of.ellipsoid

RIGHT, LEFT, RADII = (55.0, 0.0, 0.0), (-55.0, 0.0, 0.0), (26.0, 24.0, 50.0)
SINUS_RADII = (15.0, 9.0, 20.0)
AXES = canonical((3.0, 1.7, 2.1))
TURN = Rotation.from_euler("xyz", (12, -9, 15), degrees=True).as_matrix()
SHEAR = np.array([[1, 0, 0], [0, 1, 0.2], [0, 0, 1]])
ORIENTATIONS = [
    "".join(pair[i] for pair, i in zip(order, flips, strict=True))
    for order in permutations(("RL", "AP", "SI"))
    for flips in product((0, 1), repeat=3)
]


def kidney(centre):
    """Parenchyma with a sinus that opens 22 mm from the centre, towards the other kidney."""
    medial = (centre[0] - 22 * np.sign(centre[0]), 0, 0)
    return [(KIDNEY, ellipsoid(centre, RADII)), (0, ellipsoid(medial, SINUS_RADII))]


BOTH = [*kidney(RIGHT), *kidney(LEFT)]
LESIONS = [(TUMOR, ball((76, 6, 25), 12)), (CYST, ball((-60, -14, -22), 7))]


def share_outside(centre, radius, of):
    """Share of a ball beyond the ellipsoid round ``of``."""
    points = np.random.default_rng(0).uniform(-radius, radius, (40000, 3)) + centre
    points = points[ball(centre, radius)(points)]
    return 1 - float(ellipsoid(of, RADII)(points).mean())


def problems(value, rule, root, at="$"):
    """What of ``value`` breaks ``rule``, for the keywords that our schema uses; the others are refused."""
    known = {"$schema", "$defs", "title", "description", "$ref", "anyOf", "enum", "const", "type", "properties"} | {
        *("required", "additionalProperties", "items", "minItems", "maxItems", "minimum", "maximum"),
        *("exclusiveMinimum", "uniqueItems"),
    }
    assert set(rule) <= known
    if "$ref" in rule:
        return problems(value, root["$defs"][rule["$ref"].removeprefix("#/$defs/")], root, at)
    if "anyOf" in rule:
        return [] if any(not problems(value, r, root, at) for r in rule["anyOf"]) else [f"{at}: none of anyOf"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    types = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool}
    kind = rule.get("type")
    fits = {"number": number, "integer": number and value == int(value)} | {
        name: isinstance(value, of) for name, of in types.items()
    }
    bad = [f"{at}: {value!r} is no {kind}"] if kind and not fits[kind] else []
    bad += [f"{at}: {value!r} is not allowed"] if value not in rule.get("enum", [value]) else []
    bad += [f"{at}: {value!r} is not the constant"] if value != rule.get("const", value) else []
    if number:
        bad += [f"{at}: {value} too small"] if value < rule.get("minimum", value) else []
        bad += [f"{at}: {value} too large"] if value > rule.get("maximum", value) else []
        bad += [f"{at}: {value} too small"] if "exclusiveMinimum" in rule and value <= rule["exclusiveMinimum"] else []
    if isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            bad.append(f"{at}: {len(value)} items")
        bad += [p for i, v in enumerate(value) for p in problems(v, rule["items"], root, f"{at}[{i}]")]
    if isinstance(value, dict) and "properties" in rule:
        bad += [f"{at}: {key} is missing" for key in rule["required"] if key not in value]
        bad += [f"{at}: {key} is unknown" for key in value if key not in rule["properties"]]
        known_keys = [key for key in value if key in rule["properties"]]
        bad += [p for key in known_keys for p in problems(value[key], rule["properties"][key], root, f"{at}.{key}")]
    return bad


@pytest.fixture(scope="module")
def two(painted):
    return painted([*BOTH, *LESIONS], AXES)


@pytest.fixture(scope="module")
def measured(two):
    return measure(two)


@pytest.fixture(scope="module")
def ct(two):
    """Another HU in each voxel."""
    return two.with_array(np.random.default_rng(2).integers(-1000, 1000, two.shape, dtype=np.int16))


def test_volumes_sides_and_places(two, measured):
    right, left = measured.kidneys
    assert (right.side, left.side, right.note, left.note) == ("right", "left", "", "")
    tumor, cyst = measured.lesions
    assert (tumor.id, tumor.kind, tumor.side) == (1, "tumor", "right")
    assert (cyst.id, cyst.kind, cyst.side) == (2, "cyst", "left")
    assert tumor.volume_ml == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.02)
    assert cyst.volume_ml == pytest.approx(4 / 3 * np.pi * 7**3 / 1000, rel=0.03)
    np.testing.assert_allclose(tumor.centroid_ras_mm, (76, 6, 25), atol=0.4)
    np.testing.assert_allclose(cyst.centroid_ras_mm, (-60, -14, -22), atol=0.4)
    assert right.volumes_ml["tumor"] == pytest.approx(tumor.volume_ml)
    assert right.volumes_ml["cyst"] == left.volumes_ml["tumor"] == 0
    count = int((two.array == KIDNEY).sum()) * two.voxel_mm3 / 1000
    assert right.volumes_ml["parenchyma"] + left.volumes_ml["parenchyma"] == pytest.approx(count)
    assert right.volumes_ml["total"] == pytest.approx(sum(right.volumes_ml[k] for k in ("parenchyma", "tumor", "cyst")))
    assert right.length_mm == pytest.approx(100, abs=3)
    assert right.touches_border == left.touches_border == ()
    assert measured.warnings == ()


def test_diameters_of_the_balls(measured):
    for lesion, radius in zip(measured.lesions, (12, 7), strict=True):
        assert lesion.axial_diameter.mm == pytest.approx(2 * radius, abs=1.0)
        assert lesion.diameter_3d.mm == pytest.approx(2 * radius, abs=1.0)
        assert lesion.craniocaudal_mm == pytest.approx(2 * radius, abs=3.0)
        for diameter in (lesion.axial_diameter, lesion.diameter_3d):
            a, b = np.array(diameter.ends_ras_mm)
            assert np.linalg.norm(a - b) == pytest.approx(diameter.mm)
        assert lesion.box.start[0] <= lesion.axial_diameter.slice < lesion.box.stop[0]


def test_position_in_the_kidney(measured):
    tumor, cyst = measured.lesions
    assert (tumor.polar, tumor.face) == ("upper", "anterior")
    assert (cyst.polar, cyst.face) == ("lower", "posterior")
    for k in measured.kidneys:
        assert k.polar_lines.rule == "sinus"
        assert k.polar_lines.upper_mm == pytest.approx(17, abs=5)
        assert k.polar_lines.lower_mm == pytest.approx(-17, abs=5)


@pytest.mark.parametrize("offset", [-4, 0, 5])
@pytest.mark.parametrize("radius", [9, 14])
def test_exophytic_share_of_a_ball_at_the_surface(painted, offset, radius):
    """Within 0.04; 0.09 for small balls, whose craters are hardly deeper than what counts as known surface."""
    centre = (RIGHT[0] + RADII[0] + offset, 0, 0)
    (lesion,) = measure(painted([*BOTH, (TUMOR, ball(centre, radius))], AXES)).lesions
    tolerance = 0.04 if radius > 10 else 0.09
    assert lesion.exophytic_share == pytest.approx(share_outside(centre, radius, RIGHT), abs=tolerance)


def test_a_ball_within_is_endophytic_and_all_contact(painted):
    (lesion,) = measure(painted([*BOTH, (CYST, ball((66, 0, 25), 7))], AXES)).lesions
    assert lesion.exophytic_share == 0
    assert lesion.contact_area_mm2 == pytest.approx(4 * np.pi * 49, rel=0.05)
    assert lesion.polar == "upper"


def test_a_ball_apart_touches_nothing(painted):
    (lesion,) = measure(painted([*BOTH, (TUMOR, ball((91, 0, 0), 5))], AXES)).lesions
    assert lesion.contact_area_mm2 == 0
    assert lesion.exophytic_share == 1
    assert lesion.sinus_distance_mm > 30
    assert not lesion.detached


def test_what_lies_far_from_its_kidney_does_not_shape_it(painted):
    """A false blob 45 mm below a kidney, of kidney tissue and tumor: it counts in the volumes alone, and is told."""
    near, low = [*BOTH, (TUMOR, ball((76, 6, 25), 12))], (-100, -60, -150)
    blob = ((KIDNEY, ball((60, 0, -120), 12)), (TUMOR, ball((60, 6, -125), 7)))
    without, found = measure(painted(near, AXES, low)), measure(painted([*near, *blob], AXES, low))
    for kidney, other in zip(found.kidneys, without.kidneys, strict=True):
        assert (kidney.length_mm, kidney.polar_lines) == (other.length_mm, other.polar_lines)
    attached, detached = found.lesions
    (same,) = without.lesions
    assert attached == replace(same, id=attached.id, box=attached.box)
    assert detached.detached
    assert not attached.detached
    assert (detached.polar, detached.face, detached.exophytic_share, detached.sinus_distance_mm) == (None,) * 4
    assert any("detached from the kidney" in note for note in detached.notes)
    (warning,) = found.warnings
    assert "ml lie more than 10 mm away from it" in warning
    assert not without.warnings
    at_the_border = measure(painted([*near, (TUMOR, ball((60, 0, -148), 9))], AXES, low))
    assert [kidney.touches_border for kidney in at_the_border.kidneys] == [(), ()]


def test_distance_to_the_sinus(painted):
    """The ball's and the sinus's surfaces lie 12 mm apart on one horizontal line."""
    (lesion,) = measure(painted([*BOTH, (TUMOR, ball((65.0, 0, 0), 5))], canonical((2.0, 1.0, 1.0)))).lesions
    sinus_end = 55 - 22 + 15
    assert lesion.sinus_distance_mm == pytest.approx(65 - 5 - sinus_end, abs=2)
    (inside,) = measure(painted([*BOTH, (TUMOR, ball((48.0, 0, 0), 6))], AXES)).lesions
    assert inside.sinus_distance_mm < 0.5  # they meet


@pytest.mark.parametrize(
    "axes", [TURN @ AXES, SHEAR @ AXES, canonical((5.0, 1.1, 0.9))], ids=["turned", "sheared", "thick"]
)
def test_the_same_patient_on_another_grid(painted, measured, axes):
    other = measure(painted([*BOTH, *LESIONS], axes))
    for a, b in zip(measured.lesions, other.lesions, strict=True):
        assert (a.kind, a.side, a.polar, a.face) == (b.kind, b.side, b.polar, b.face)
        assert b.volume_ml == pytest.approx(a.volume_ml, rel=0.05)
        assert b.axial_diameter.mm == pytest.approx(a.axial_diameter.mm, abs=1.2)
        assert b.diameter_3d.mm == pytest.approx(a.diameter_3d.mm, abs=1.2)
        assert b.contact_area_mm2 == pytest.approx(a.contact_area_mm2, rel=0.12)
        assert b.exophytic_share == pytest.approx(a.exophytic_share, abs=0.05)
        assert b.sinus_distance_mm == pytest.approx(a.sinus_distance_mm, abs=2.5)
        np.testing.assert_allclose(b.centroid_ras_mm, a.centroid_ras_mm, atol=0.6)


def flat(value, at=""):
    """Every leaf of a JSON-ready value by its path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{at}.{key}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{at}[{i}]").items()}
    return {at: value}


@pytest.fixture(scope="module")
def with_hu(two, ct):
    return flat(measure(two, ct).as_dict())


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_all_48_orientations_measure_the_same(codes, two, ct, with_hu):
    turn = nio.ornt_transform(nio.io_orientation(two.grid.affine), nio.axcodes2ornt(tuple(codes)))

    def turned(volume):
        stored = nio.apply_orientation(volume.stored(), turn)
        affine = two.grid.affine @ nio.inv_ornt_aff(turn, two.grid.shape)
        return Volume.from_stored(np.ascontiguousarray(stored), Grid(stored.shape, affine), two.name)

    one, other = with_hu, flat(measure(turned(two), turned(ct)).as_dict())
    assert any("hu.median" in key for key in one)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert other[key] == (pytest.approx(value, abs=2e-3) if isinstance(value, float) else value), key


def test_the_dictionary_is_what_the_schema_says(two, measured):
    ct = two.with_array(np.where(two.array == TUMOR, 80, -50).astype(np.int16))
    scored = measured.with_nephrometry([{"renal": {"total": 7}}, None])
    for data in (measured.as_dict(), measure(two, ct).as_dict(), scored.as_dict()):
        assert problems(data, schema(), schema()) == []
    if importlib.util.find_spec("jsonschema"):
        import jsonschema

        jsonschema.Draft202012Validator(schema()).validate(measured.as_dict())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("lesions", 0, "kind"), "stone"),
        (("lesions", 0, "volume_ml"), 0),
        (("lesions", 0, "axial_diameter", "slice"), 1.5),
        (("lesions", 0, "exophytic_share"), 1.2),
        (("kidneys", 0, "touches_border"), ["top"]),
        (("kidneys", 0, "extra"), 1),
        (("notice"), ""),
    ],
)
def test_the_schema_refuses_what_is_wrong(measured, path, value):
    data = measured.as_dict()
    *way, last = (path,) if isinstance(path, str) else path
    target = data
    for key in way:
        target = target[key]
    target[last] = value
    assert problems(data, schema(), schema())


def test_intensity_under_a_lesion(two):
    hu = np.full(two.shape, -100, np.int16)
    tumor = two.array == TUMOR
    hu[tumor] = np.arange(tumor.sum()) % 100
    lesion, cyst = measure(two, two.with_array(hu)).lesions
    expected = hu[tumor].astype(float)
    assert lesion.hu["mean"] == pytest.approx(expected.mean())
    assert lesion.hu["sd"] == pytest.approx(expected.std())
    assert [lesion.hu[k] for k in ("p5", "p25", "median", "p75", "p95")] == pytest.approx(
        np.percentile(expected, (5, 25, 50, 75, 95)).tolist()
    )
    assert cyst.hu["sd"] == 0
    assert not any(note.startswith("hu") for note in lesion.notes)


def test_a_ct_on_another_grid_is_refused(two):
    with pytest.raises(GeometryError, match=r"painted: .* different grids"):
        measure(two, Volume.from_array(np.zeros(two.shape, np.int16), (3.0, 1.7, 2.2)))


def test_without_a_ct_the_note_says_so(measured):
    assert all(lesion.hu is None and "hu: no CT was given." in lesion.notes for lesion in measured.lesions)


def test_fragments_are_named_not_listed(painted):
    speck = ball((55, -25, 0), 1.2)
    found = measure(painted([*BOTH, (TUMOR, speck)], canonical((2.0, 1.0, 1.0))))
    assert found.lesions == ()
    assert 0 < found.kidneys[0].volumes_ml["tumor"] < SMALLEST_LESION_ML
    (warning,) = found.warnings
    assert warning.startswith("The right kidney: 1 fragment labelled tumor")


def test_pieces_that_meet_at_a_corner_are_one_lesion():
    array = np.zeros((20, 40, 60), np.uint8)
    array[5:15, 10:30, 10:30] = KIDNEY
    array[6:9, 12:15, 12:15] = array[9:12, 15:18, 15:18] = TUMOR
    array[6:9, 20:23, 20:23] = CYST
    lesions = measure(Volume.from_array(array, (2.0, 2.0, 2.0))).lesions
    assert [(lesion.kind, lesion.voxels) for lesion in lesions] == [("tumor", 54), ("cyst", 27)]


def test_the_mask_of_a_lesion(two, measured):
    for lesion in measured.lesions:
        mask = lesion_mask(two, lesion)
        assert mask.shape == lesion.box.shape
        label = TUMOR if lesion.kind == "tumor" else CYST
        np.testing.assert_array_equal(mask, two.array[lesion.box.slices] == label)
    with pytest.raises(InputError, match="lesion 1 is not in the label map"):
        lesion_mask(two.with_array(np.zeros_like(two.array)), measured.lesions[0])


@pytest.mark.parametrize(("centre", "side"), [(RIGHT, "right"), (LEFT, "left")])
def test_a_solitary_kidney(painted, centre, side):
    lesion = ball((centre[0], 22, 0), 9)
    found = measure(painted([*kidney(centre), (TUMOR, lesion)], AXES))
    (only,) = found.kidneys
    assert (only.side, only.note) == (side, "the only kidney found")
    assert (found.lesions[0].side, found.lesions[0].face) == (side, "anterior")
    assert only.polar_lines.rule == "sinus"


def test_fused_kidneys_have_no_landmarks(painted):
    bridge = (KIDNEY, ellipsoid((0, 0, -40), (70, 10, 12)))
    found = measure(painted([*BOTH, bridge, *LESIONS], AXES))
    (both,) = found.kidneys
    assert (both.side, both.polar_lines) == ("both", None)
    assert "fused" in both.note
    for lesion in found.lesions:
        assert (lesion.side, lesion.polar, lesion.face) == ("both", None, None)
        assert lesion.exophytic_share is None
        assert lesion.sinus_distance_mm is None
        assert lesion.contact_area_mm2 > 100
        assert sum("one piece" in note for note in lesion.notes) == 4
    assert problems(found.as_dict(), schema(), schema()) == []


def test_nothing_labelled(painted):
    found = measure(painted([], AXES)).as_dict()
    assert (found["kidneys"], found["lesions"]) == ([], [])
    assert problems(found, schema(), schema()) == []


def test_a_kidney_that_is_cut_off(painted):
    whole = painted([*BOTH, (TUMOR, ball((55, 20, 30), 10))], AXES)
    cut = 25  # slices, below the cranial pole and through the tumor
    affine = whole.affine @ np.array([[1, 0, 0, cut], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    part = np.ascontiguousarray(whole.array[cut:])
    found = measure(Volume.from_stored(part, Grid(part.shape, affine), "cut"))
    right = found.kidneys[0]
    assert right.touches_border == ("superior",)
    assert any("superior border" in warning for warning in found.warnings)
    seen = np.flatnonzero((part == KIDNEY).any(axis=(1, 2)))
    assert right.length_mm == pytest.approx((seen[-1] + 1) * 3.0)
    for lesion in found.lesions:
        assert any("reaches the border" in note for note in lesion.notes)


def test_masses_without_parenchyma_abstain(painted):
    found = measure(painted([(TUMOR, ball((55, 0, 0), 20))], AXES))
    (lesion,) = found.lesions
    assert found.kidneys[0].polar_lines is None
    assert (lesion.polar, lesion.face, lesion.exophytic_share, lesion.sinus_distance_mm) == (None,) * 4
    assert lesion.contact_area_mm2 == 0
    assert any("too little parenchyma" in note for note in lesion.notes)
    assert found.kidneys[0].length_mm == pytest.approx(40, abs=3)


def test_a_kidney_without_a_hollow_goes_by_thirds(painted):
    solid = [(KIDNEY, ellipsoid(RIGHT, RADII)), (KIDNEY, ellipsoid(LEFT, RADII))]
    (lesion,) = measure(painted([*solid, (CYST, ball((55, 0, -35), 8))], AXES)).lesions
    assert lesion.polar == "lower"
    assert lesion.sinus_distance_mm is None
    assert any(note.startswith("sinus_distance_mm") for note in lesion.notes)
    assert any("thirds" in note for note in lesion.notes)


def test_one_score_a_lesion(measured):
    with pytest.raises(InputError, match="1 nephrometry scores for 2 lesions"):
        measured.with_nephrometry([None])
