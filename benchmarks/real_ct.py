"""Segments five real CTs and measures what can be measured on them.

No packaged network has seen them as they are; three of them, without their kidneys, were bodies of training phantoms.

    python benchmarks/real_ct.py --data REAL_CT_DIR --out DIR [--weights NAME]

REAL_CT_DIR holds a folder for each CT, named as in ``CASES``; those that are absent are left out. Writes
``real_ct.md`` and ``real_ct.json`` (the table), ``real_ct_NAME.png`` (outlines of the labels on 12 axial slices) and,
for the CT that ``outline`` knows, ``outline.png`` (the same for the reference). The segmentations are kept in
DIR/segmentation; a CT that was segmented with the same weights is not done again.

The reference of ``pancreas_ct_cb_001`` is made by rule, not by a radiologist: envelopes drawn by hand round both
kidneys, which keep liver, spleen, bowel, muscle and the vessels of the hilum away, thresholds inside them on the
smoothed CT, then opening, closing and small holes filled. The renal sinus is left out where it opens, as KiTS does.
"""

import argparse
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from scipy import ndimage

from renalseg import __version__
from renalseg.batch import segment_all
from renalseg.core.errors import InputError
from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.evaluate.metrics import dice
from renalseg.image.boxes import Box, bounding_box, grow
from renalseg.io.files import atomic_path, write_json, write_text
from renalseg.io.kits import read_labels
from renalseg.io.nifti import read_nifti
from renalseg.io.read import read_volume
from renalseg.predict.segmenter import DEFAULT_WEIGHTS, Segmenter
from renalseg.report.drawing import BACKGROUND_COLOUR, FONT, OUTLINE, TEXT_COLOUR
from renalseg.report.sides import kidney_sides
from renalseg.report.slices import PLANES, draw_slice, frame_slice
from renalseg.train.validate import box_coverage

CASES = {
    "pancreas_ct_cb_001": "dicom.zip",
    "totalsegmentator_example": "ct.nii.gz",
    "acrin_flt_breast_001": "ct.nii.gz",
    "cptac_pda_c3l_00189": "ct.nii.gz",
    "c4kc_kits_00072_top": "dicom.zip",
}
OUTLINED, ORGANS, WITHOUT_KIDNEY = "pancreas_ct_cb_001", "organs.nii.gz", "c4kc_kits_00072_top"
CENTRES = {
    "acrin_flt_breast_001": ((40, 315, 167), (40, 322, 318)),
    "cptac_pda_c3l_00189": ((29, 312, 150), (29, 315, 348)),
}
"""Voxels (z, y, x) within the right and the left kidney where there is no reference; placed by hand."""
NEAR_CENTRE_MM, FOUND_SHARE = 10.0, 0.5
ORGAN_KIDNEYS = (2, 3)
"""TotalSegmentator's class ids: right and left kidney."""

Corners = Sequence[tuple[float, float]]
"""A polygon in voxels (x, y)."""

OUTLINED_SHAPE = (134, 512, 512)
# fmt: off
RIGHT: dict[int, Corners] = {
    46: ((209, 292), (213, 289), (218, 290), (218, 296), (213, 299), (209, 297)),
    47: ((174, 299), (177, 291), (183, 287), (191, 288), (197, 289), (203, 287), (212, 284), (222, 282), (228, 286),
         (228, 294), (222, 301), (212, 304), (203, 302), (198, 304), (197, 310), (190, 315), (181, 313), (176, 307)),
    48: ((168, 301), (170, 292), (176, 286), (184, 283), (191, 285), (197, 282), (206, 279), (218, 278), (228, 279),
         (233, 287), (232, 294), (222, 301), (210, 306), (204, 309), (201, 315), (192, 319.5), (182, 319), (173, 313)),
    49: ((164.5, 302), (167, 291), (172, 284), (180, 280), (189, 279), (197, 276), (210, 275), (225, 275), (234, 279),
         (235, 288), (230, 296), (218, 303), (211, 310), (207, 318), (198, 324), (187, 323), (175, 319), (168, 312)),
    50: ((160.5, 303), (162, 294), (166, 287), (173, 282), (181, 279), (192, 275), (203, 272), (218, 272), (231, 273),
         (237, 279), (237, 288), (230, 297), (219, 304), (212, 312), (206, 321), (195, 327), (182, 325), (170, 320),
         (163, 312)),
    52: ((156, 297), (158, 289), (165, 283), (176, 278), (187, 273), (200, 268), (217, 268), (232, 270), (240, 277),
         (240, 287), (234, 296), (222, 305), (213, 314), (204, 323), (192, 328), (178, 328), (166, 322), (159, 313),
         (156, 305)),
    54: ((153, 299), (156, 291), (164, 283), (176, 275), (188, 269), (200, 266), (218, 266), (230, 268), (237, 269.5),
         (241, 273), (241, 284), (234, 294), (224, 303), (213, 311), (206, 318), (197, 324), (184, 327), (172, 325),
         (162, 319), (155, 310)),
    56: ((152, 303), (155, 293), (162, 284), (172, 274), (184, 267), (196, 264), (208, 264), (222, 264), (234, 265),
         (242, 273), (241, 284), (233, 294), (224, 303), (215, 311), (208, 318), (199, 324), (186, 328), (173, 327),
         (161, 321), (154, 312)),
    58: ((155, 303), (157, 294), (163, 285), (172, 275), (184, 266), (197, 259), (208, 256.5), (214, 258), (216, 264),
         (222, 264), (232, 263), (239, 268), (241, 275), (236, 285), (229, 295), (220, 304), (211, 313), (205, 320),
         (195, 325), (182, 326), (170, 324), (160, 317)),
    60: ((158, 302), (160, 294), (166, 285), (176, 273), (188, 262), (200, 256), (212, 253.5), (219, 256), (220, 260),
         (217, 265), (219, 267), (225, 264), (233, 265), (240, 271), (240, 278), (235, 286), (227, 296), (217, 306),
         (208, 314), (200, 320), (188, 323), (175, 321), (164, 314)),
    62: ((164, 298), (167, 288), (173, 277), (183, 264), (196, 255), (209, 251), (219, 252), (223, 257), (222.5, 262),
         (226, 266), (232, 266), (238, 269), (239, 275), (234, 285), (226, 297), (215, 306), (204, 312), (193, 315),
         (181, 315), (170, 309)),
    64: ((167, 290), (169, 280), (176, 268), (187, 257), (200, 251), (213, 249), (222, 252), (225, 258), (222, 265),
         (220, 272), (225, 277), (233, 274), (236, 278), (232, 288), (224, 298), (212, 307), (199, 311), (187, 312),
         (176, 307), (168, 299)),
    66: ((168, 288), (170, 277), (176, 266), (186, 255), (199, 249), (214, 248), (222, 252), (223.5, 259), (217, 265),
         (212, 272), (215, 278), (222, 280.5), (230, 279), (232, 283), (225, 293), (214, 302), (200, 308), (187, 307),
         (175, 301)),
    68: ((169, 289), (171, 278), (178, 267), (188, 256), (200, 249), (212, 248), (221, 251), (223, 257.5), (218, 264),
         (210, 267), (206, 272.5), (212, 280), (217, 284), (218, 290), (211, 299), (200, 305), (187, 305), (175, 300)),
    70: ((170, 286), (173, 275), (181, 264), (191, 255), (203, 249), (214, 248), (222, 250), (227, 257), (226, 266),
         (221, 269.5), (215, 271), (211, 275.5), (214, 280), (217, 284), (217, 291), (209, 299), (198, 304), (185, 303),
         (174, 297)),
    73: ((171, 288), (174, 276), (183, 263), (194, 253), (206, 248), (218, 247.5), (227, 251), (232, 259), (231, 266),
         (224, 276), (215, 286), (206, 296), (194, 303), (182, 302), (173, 297)),
    77: ((179, 287), (183, 275), (192, 263), (202, 253), (213, 248), (224, 250), (231, 258), (230, 266), (222, 276),
         (211, 287), (200, 297), (189, 300), (181, 296)),
    81: ((185, 283), (190, 270), (202, 257), (214, 251), (223, 251), (227, 257), (223, 268), (213, 280), (202, 289),
         (191, 292), (186, 289)),
    83: ((189, 281), (196, 270), (203, 261), (212, 257.5), (219, 258), (220, 264), (213, 274), (205, 280), (197, 286),
         (190, 286)),
    84: ((197, 272), (203, 264), (211, 263), (213, 268), (208, 276), (200, 278)),
}
LEFT: dict[int, Corners] = {
    49: ((306, 284), (311, 283), (317, 300), (315, 305), (309, 300)),
    50: ((302, 282), (306, 274), (313, 275), (318, 284), (320.5, 296), (320, 307), (315, 310), (308, 302)),
    51: ((299, 281), (303, 272), (311, 269.5), (318, 273), (321.5, 283), (322.3, 295), (323.5, 305), (320, 312),
         (313, 311), (305, 300)),
    52: ((297, 280), (300, 269), (309, 265), (319, 267), (324, 276), (325, 286), (326, 297), (327.5, 307), (325, 313),
         (317, 315), (308, 306), (300, 293)),
    53: ((296, 280), (298, 267), (307, 262), (319, 264), (327, 270), (330, 280), (330.8, 290), (331.8, 301), (330, 311),
         (322, 316), (312, 309), (302, 296)),
    54: ((295, 279), (297, 265), (305, 259.5), (318, 261), (328, 265), (332.5, 274), (332.3, 285), (334, 292),
         (335.7, 300), (335, 308), (327, 318), (316, 315), (303, 301)),
    55: ((294, 278), (296, 263), (305, 257.5), (318, 259), (330, 263), (336, 272), (335.5, 280), (339, 289),
         (340.3, 297), (338, 306), (332, 315), (324, 319), (312, 308), (300, 294)),
    56: ((294, 277), (296, 262), (306, 256), (320, 257), (333, 264), (341, 274), (341, 282), (347, 295), (343, 308),
         (333, 319), (322, 317), (306, 301)),
    58: ((296, 275), (298, 261), (307, 253), (321, 253), (335, 258), (345, 270), (349, 284), (355, 296), (351, 308),
         (338, 319), (325, 315), (308, 302)),
    60: ((297, 275), (299, 258), (309, 252), (322, 252), (337, 259), (349, 269), (358, 283), (360, 298), (353, 310),
         (337, 317), (321, 313), (306, 301)),
    62: ((297, 275), (299, 258), (309, 252), (322, 252), (337, 258), (352, 267), (361, 280), (363, 298), (354, 311),
         (337, 317), (321, 312), (306, 300)),
    64: ((297, 276), (299, 262), (305, 256.5), (312, 257.5), (318, 260), (323, 259), (328, 255.5), (340, 256),
         (353, 263), (363, 276), (365, 295), (356, 310), (342, 316), (325, 311), (309, 300), (299, 287)),
    66: ((299, 278), (301, 269), (306, 263), (310, 264), (315, 270), (321, 274), (323, 266), (323.5, 258), (328, 254),
         (339, 254), (352, 261), (362, 275), (364, 292), (357, 307), (345, 315), (330, 313), (314, 303), (302, 291)),
    68: ((307, 288), (312, 283), (319, 284), (321, 278), (325, 273), (323, 266), (323, 259), (328, 254), (338, 255),
         (350, 261), (359, 272), (361, 288), (360, 302), (352, 310), (342, 313), (328, 309), (314, 301), (307, 293)),
    70: ((312, 289), (315, 284.5), (322, 283.5), (330, 283.5), (335, 281), (331, 276), (325, 270), (322, 264),
         (325, 257), (332, 253), (342, 255), (352, 262), (360, 275), (363, 290), (362, 301), (353, 309), (342, 308),
         (328, 303), (314, 297)),
    72: ((317, 285), (320, 281), (328, 279), (330, 276.5), (326, 273), (320, 270.5), (317, 263), (321, 255),
         (330, 251), (342, 254), (353, 262), (362, 276), (364, 292), (361, 305), (352, 310), (340, 306), (327, 300),
         (318, 293)),
    74: ((314, 275), (315, 262), (321, 254), (331, 250.5), (340, 254.5), (348, 259.5), (357, 269), (363, 283),
         (363, 297), (357, 306), (349, 308), (336, 305), (323, 296), (316, 285)),
    78: ((315, 270), (317, 260), (323, 253), (333, 251), (343, 253.5), (349, 259), (354, 266), (359, 277), (361, 290),
         (357, 301), (347, 304), (334, 299), (322, 288), (316, 279)),
    81: ((319, 268), (322, 258), (329, 253), (338, 253), (346, 258), (353, 267), (358, 279), (360, 290), (354, 298),
         (343, 296), (330, 286), (321, 276)),
    84: ((325, 268), (328, 259), (335, 256), (343, 259), (350, 266), (356, 277), (354, 287), (346, 288), (335, 281),
         (327, 274)),
    85: ((328, 267), (331, 259), (338, 257.5), (345, 263), (352, 272), (354, 284), (347, 286), (336, 279)),
    86: ((335, 266), (341, 263), (348, 270), (347, 275), (340, 273)),
}
# fmt: on
"""Envelopes of the kidneys, slice to polygon: tight where another organ or the hilum touches, loose in fat."""

CYST_SLICES, CYST_SEED = (46, 65), (54, 300, 180)
SMOOTHING_PX = (0.0, 0.6, 0.6)
KIDNEY_HU = 70.0
"""Over muscle (57 HU), under medulla (about 100); the border to fat moves by 0.2 mm against the half-way value."""
CYST_HU = (-45.0, 62.0)
"""Half-way from the cyst's 10 HU to fat and to medulla or liver."""
OPENING_MM, CLOSING_MM, LARGEST_HOLE_MM2 = 1.6, 2.7, 200.0
SLICES, COLUMNS = 12, 4


def envelope(polygons: dict[int, Corners], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Polygons of some slices, filled; the slices between them by linear interpolation of signed distances."""
    filled = np.zeros(shape, np.bool_)
    y, x = np.mgrid[: shape[1], : shape[2]]
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    signed = {}
    for z, corners in polygons.items():
        inside = Outline(corners).contains_points(points).reshape(shape[1:])
        signed[z] = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    drawn = sorted(signed)
    for below, above in pairwise(drawn):
        for z in range(below, above + 1):
            share = (z - below) / (above - below)
            filled[z] = (1 - share) * signed[below] + share * signed[above] > 0
    return filled


def outline(ct: Volume) -> Volume:
    """The reference of the CT in the folder ``OUTLINED``: both kidneys and the large cyst of the right one.

    Raises:
        InputError: another CT, by its shape.
    """
    if ct.shape != OUTLINED_SHAPE:
        raise InputError(f"{ct.name} has {ct.shape} voxels; the outline was drawn for one of {OUTLINED_SHAPE}")
    smooth = ndimage.gaussian_filter(ct.array.astype(np.float32), SMOOTHING_PX)
    right, left = envelope(RIGHT, ct.shape), envelope(LEFT, ct.shape)
    disc = _disc(OPENING_MM, ct.spacing_mm)
    fluid = right & (smooth > CYST_HU[0]) & (smooth < CYST_HU[1])
    fluid[: CYST_SLICES[0]] = fluid[CYST_SLICES[1] :] = False
    parts = cc3d.connected_components(ndimage.binary_opening(fluid, _disc(3.0, ct.spacing_mm)), connectivity=6)
    cyst = ndimage.binary_closing(parts == parts[CYST_SEED], disc)
    labels = np.zeros(ct.shape, np.uint8)
    for side in (right, left):
        tissue = ndimage.binary_opening(side & (smooth > KIDNEY_HU) & ~cyst, disc)
        closed = side & ndimage.binary_closing(tissue | (cyst & side), _disc(CLOSING_MM, ct.spacing_mm))
        whole = _fill_holes(closed, ct.spacing_mm[1] * ct.spacing_mm[2])
        labels[cc3d.largest_k(whole & ~cyst, k=1, connectivity=6) > 0] = KIDNEY
    labels[cyst] = CYST
    return ct.with_array(labels)


def _disc(radius_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """A structuring element within the slice."""
    dy, dx = spacing_mm[1:]
    ny, nx = int(radius_mm // dy), int(radius_mm // dx)
    y, x = np.ogrid[-ny : ny + 1, -nx : nx + 1]
    return np.asarray((y * dy) ** 2 + (x * dx) ** 2 <= radius_mm**2)[None]


def _fill_holes(mask: NDArray[np.bool_], pixel_mm2: float) -> NDArray[np.bool_]:
    """Fills what a slice encloses, up to ``LARGEST_HOLE_MM2``: medulla and vessels, not the sinus."""
    filled = mask.copy()
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        holes, _ = ndimage.label(ndimage.binary_fill_holes(mask[z]) & ~mask[z])
        areas = np.bincount(holes.ravel()) * pixel_mm2
        areas[0] = math.inf
        filled[z] |= areas[holes] <= LARGEST_HOLE_MM2
    return filled


def contact_sheet(ct: Volume, labels: Volume, path: Path, title: str, shown: Box | None = None) -> None:
    """Outlines on ``SLICES`` axial slices, evenly spaced over ``shown`` (the labels' box, else the whole CT)."""
    box = shown or bounding_box(labels.array > 0) or Box((0, 0, 0), ct.shape)
    wide = grow(box, (0.0, 30.0, 30.0), ct.spacing_mm, ct.shape)
    view = tuple(((wide.start[a] - 0.5) * ct.spacing_mm[a], (wide.stop[a] - 0.5) * ct.spacing_mm[a]) for a in (1, 2))
    indices = np.linspace(box.start[0] + 0.5, box.stop[0] - 1.5, SLICES).round().astype(int)
    rows, header, panel = -(-SLICES // COLUMNS), 0.42, 4.5
    height = panel * (view[0][1] - view[0][0]) / (view[1][1] - view[1][0])
    figure = Figure(figsize=(COLUMNS * panel, rows * height + header), dpi=100, facecolor=BACKGROUND_COLOUR)
    total = figure.get_figheight()
    for place, z in enumerate(np.clip(indices, 0, ct.shape[0] - 1)):
        row, column = divmod(place, COLUMNS)
        size = ((panel - 0.04) / (COLUMNS * panel), (height - 0.04) / total)
        axes = figure.add_axes((column / COLUMNS, 1 - (header + (row + 1) * height) / total, *size))
        draw_slice(axes, ct, labels, PLANES[0], int(z))
        frame_slice(axes, PLANES[0], (view[0], view[1]))
        style: dict[str, Any] = {"color": TEXT_COLOUR, "fontfamily": FONT, "path_effects": OUTLINE}
        axes.text(0.02, 0.98, f"{z + 1}", va="top", transform=axes.transAxes, fontsize=10, **style)
    figure.text(0.006, 1 - header / 2 / total, title, color=TEXT_COLOUR, fontfamily=FONT, fontsize=11, va="center")
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": f"renalseg {__version__}"})


def reference(data: Path, name: str, ct: Volume) -> Volume | None:
    """What the labels of a CT are compared with: the outline, or TotalSegmentator's kidneys; None elsewhere."""
    if name == OUTLINED:
        return outline(ct)
    organs = data / name / ORGANS
    if organs.exists():
        found = read_nifti(organs)
        if not found.same_grid(ct, tolerance_mm=0.1):
            raise InputError(f"{organs} is not on the grid of its CT")
        return ct.with_array(np.isin(found.array, ORGAN_KIDNEYS).astype(np.uint8))
    return None


def kidneys_of(name: str, ct: Volume, truth: Volume | None) -> list[NDArray[np.bool_]]:
    """Where each kidney is: the reference's right and left half, or the tissue round the centres placed by hand."""
    if truth is not None:
        right = np.arange(ct.shape[2]) < ct.shape[2] / 2
        return [(truth.array > 0) & side for side in (right, ~right)]
    found = []
    for centre in CENTRES.get(name, ()):
        grids = np.ogrid[tuple(slice(0, n) for n in ct.shape)]
        squares = [((g - c) * s) ** 2 for g, c, s in zip(grids, centre, ct.spacing_mm, strict=True)]
        near = squares[0] + squares[1] + squares[2] <= NEAR_CENTRE_MM**2
        found.append(near & (ct.array > 0))
    return found


def measure(name: str, ct: Volume, labels: Volume, truth: Volume | None, record: dict[str, Any]) -> dict[str, Any]:
    """One row of the table. Volumes are in ml; scores are None without a reference."""
    array, ml = labels.array, labels.voxel_mm3 / 1000
    kidneys = kidneys_of(name, ct, truth)
    row: dict[str, Any] = {"kidneys": len(kidneys), "components": len(record["components"])}
    row["found"] = sum(bool((array[kidney] > 0).mean() >= FOUND_SHARE) for kidney in kidneys)
    row |= {"right_ml": 0.0, "left_ml": 0.0}
    for side in kidney_sides(labels):
        which = "left_ml" if side.title == "Left kidney" else "right_ml"
        row[which] = round(sum(side.volumes_ml.values()), 1)
    row |= {name: round(float(np.sum(array == i)) * ml, 1) for name, i in (("tumor_ml", TUMOR), ("cyst_ml", CYST))}
    row |= {"dice_kidney": None, "dice_cyst": None, "false_tumor_ml": None, "outside_ml": None, "in_box": None}
    if truth is not None:
        true = truth.array
        row["dice_kidney"] = round(dice(true > 0, array > 0), 4)
        row["false_tumor_ml"] = row["tumor_ml"]  # no reference here holds a tumor
        row["in_box"] = round(box_coverage(truth, record["box_zyx"]), 4)
        row["outside_ml"] = round(float(np.sum((array > 0) & (true == 0))) * ml, 1)
        if (true == CYST).any():
            row["dice_cyst"] = round(dice(true == CYST, array == CYST), 4)
    return row | {"seconds": record["timings_s"]["total"], "warnings": record["warnings"]}


def verdict(name: str, row: dict[str, Any]) -> str:
    """In words what the numbers do not say."""
    if name == WITHOUT_KIDNEY:
        return "none reported, as is right" if row["components"] == 0 else "WRONG: there is no kidney in it"
    return "both kidneys found" if row["found"] == row["kidneys"] else "WRONG: a kidney was missed"


def markdown(rows: dict[str, dict[str, Any]], weights: str, references: dict[str, dict[str, float]]) -> str:
    """The table as it goes to docs/benchmarks.md."""
    columns = {
        "right": "right_ml",
        "left": "left_ml",
        "tumor called": "tumor_ml",
        "cyst called": "cyst_ml",
        "Dice, kidney and masses": "dice_kidney",
        "Dice, cyst": "dice_cyst",
        "false tumor": "false_tumor_ml",
        "outside the reference": "outside_ml",
        "reference in the box": "in_box",
    }
    lines = [
        f"renalseg {__version__}, weights {weights[:16]}. Volumes in ml, right and left with their masses. A kidney is "
        f"found where {100 * FOUND_SHARE:g} % of the reference, or of the tissue near a centre placed by hand, is "
        "labelled. Dice against the references below.",
        "",
        "| CT | kidneys found | components | " + " | ".join(columns) + " | result |",
        "|---|---|---|" + "---|" * len(columns) + "---|",
    ]
    for name, row in rows.items():
        shown = " | ".join("-" if (cell := row[key]) is None else f"{cell}" for key in columns.values())
        found = f"{row['found']} of {row['kidneys']} | {row['components']}"
        lines.append(f"| {name} | {found} | {shown} | {verdict(name, row)} |")
    lines.append("")
    for name, volumes in references.items():
        kind = "outlined by rule, no tumor in it" if name == OUTLINED else "another model's kidneys, classes 2 and 3"
        lines.append(f"- {name}: {kind}; " + ", ".join(f"{k} {v:.1f} ml" for k, v in volumes.items()))
    for name, row in rows.items():
        lines += [f"- {name}: {warning}" for warning in row["warnings"]]
    return "\n".join(lines) + "\n"


def segment_missing(files: dict[str, Path], out: Path, segmenter: Segmenter) -> None:
    """Segments what was not segmented with these weights yet, or has changed since."""
    todo = {}
    for name, path in files.items():
        record = out / f"{name}.json"
        fresh = record.exists() and record.stat().st_mtime > path.stat().st_mtime
        if not fresh or json.loads(record.read_text())["weights_sha256"] != segmenter.weights_sha256:
            todo[name] = path
    for outcome in segment_all(todo, out, segmenter):
        if outcome.record is None:
            raise InputError(outcome.error or outcome.name)
        print(f"{outcome.name} {outcome.record['timings_s']['total']:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    a = parser.parse_args()
    files = {name: a.data / name / file for name, file in CASES.items() if (a.data / name / file).exists()}
    if not files:
        parser.error(f"{a.data} holds none of {', '.join(CASES)}")
    segmenter = Segmenter(a.weights)
    segment_missing(files, a.out / "segmentation", segmenter)
    rows, references = {}, {}
    for name, file in files.items():
        ct, labels = read_volume(file), read_labels(a.out / "segmentation" / f"{name}.nii.gz")
        truth = reference(a.data, name, ct)
        record = json.loads((a.out / "segmentation" / f"{name}.json").read_text())
        rows[name] = measure(name, ct, labels, truth, record)
        box = None
        if truth is not None:
            box = bounding_box(truth.array > 0)
            ml = ct.voxel_mm3 / 1000
            volumes = {"kidneys": np.sum(truth.array == KIDNEY) * ml, "cyst": np.sum(truth.array == CYST) * ml}
            references[name] = {k: float(v) for k, v in volumes.items() if v > 0}
        colours = "kidney green, tumor red, cyst blue; slices counted from the head"
        title = f"{name}, weights {segmenter.weights_sha256[:8]}: {colours}"
        contact_sheet(ct, labels, a.out / f"real_ct_{name.split('_')[0]}.png", title, box)
        if name == OUTLINED and truth is not None:
            contact_sheet(ct, truth, a.out / "outline.png", f"{name}: the reference, outlined by rule", box)
    write_json({"weights_sha256": segmenter.weights_sha256, "cases": rows}, a.out / "real_ct.json")
    table = markdown(rows, segmenter.weights_sha256, references)
    write_text(table, a.out / "real_ct.md")
    print("\n" + table)


if __name__ == "__main__":
    main()
