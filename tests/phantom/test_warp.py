"""How real bodies lie in a scan, on the synthetic one of ``conftest``."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalseg.core.errors import InputError
from renalseg.phantom.bodies import REMOVAL_MM, SOFT_EDGE_MM, RealBody, load_body
from renalseg.phantom.fields import Lattice
from renalseg.phantom.implant import bent
from renalseg.phantom.warp import LEAST_SLICES, covered, draw_warp, draw_warp_beside


def test_covered_slices_lie_within_the_body(label_map, placed, body: RealBody) -> None:
    rng = np.random.default_rng(7)
    _, grid, renal = placed(rng, label_map(slices=90))
    warp = draw_warp(rng, body, grid, renal)
    slices = covered(body, warp, grid)
    assert 30 < slices.stop - slices.start < 75
    z = warp.points(grid)[0]
    low, high = body.lattice.origin[0] - 2.5, body.lattice.axis(0)[-1] + 2.5
    assert ((z[slices] > low) & (z[slices] < high)).mean() > 0.9
    with pytest.raises(InputError, match="trunk is too short along z"):
        covered(body, warp, Lattice((500.0, *grid.origin[1:]), grid.spacing, grid.shape))


def beside(first_mm: float, slices: int = 12) -> Lattice:
    """A grid of 5 mm slices without kidneys, of which the first lies ``first_mm`` below the body's."""
    return Lattice((first_mm, -160.0, -180.0), (5.0, 4.0, 4.0), (slices, 80, 90))


def marked(body: RealBody) -> RealBody:
    """The body with metal wherever its kidneys or their rim were."""
    z, y, x = (
        (axis > low + step / 2 - REMOVAL_MM - SOFT_EDGE_MM / 2)
        & (axis < high - step / 2 + REMOVAL_MM + SOFT_EDGE_MM / 2)
        for axis, low, high, step in zip(map(body.lattice.axis, range(3)), *body.own, body.lattice.spacing, strict=True)
    )
    hu = body.hu.copy()
    hu[np.ix_(z, y, x)] = 3000
    return replace(body, hu=hu)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("first_mm", "slices"), [(-150.0, 12), (100.0, 12), (-300.0, 40), (100.0, 40)])
def test_beside_its_kidneys_a_scan_shows_no_trace_of_them(
    body: RealBody, seed: int, first_mm: float, slices: int
) -> None:
    grid = beside(first_mm, slices)
    drawn = draw_warp_beside(np.random.default_rng(seed), body, grid)
    assert drawn is not None
    warp, cut = drawn
    count = cut.stop - cut.start
    assert LEAST_SLICES <= count <= 18
    part = replace(grid, origin=(first_mm + 5.0 * cut.start, *grid.origin[1:]), shape=(count, *grid.shape[1:]))
    points = warp.points(part)
    assert np.all(points[0][:, 40, 45] < 0) if first_mm < 0 else np.all(points[0][:, 40, 45] > 0)
    assert bent(part, marked(body), part, points).max() < 700
    trunk = bent(part, body, part, points) > -500
    y, x = np.argwhere(trunk.any(axis=0)).mean(axis=0) * 4.0
    assert (y - 160, x - 180) == pytest.approx((0, 0), abs=25)


def test_a_body_too_short_on_one_side_shows_the_other(trunk, tmp_path: Path) -> None:
    body = load_body(trunk.write(tmp_path / "trunk", slices=slice(12, None)))
    for seed in range(4):
        drawn = draw_warp_beside(np.random.default_rng(seed), body, beside(-150.0))
        assert drawn is not None
        warp, cut = drawn
        assert np.all(warp.points(beside(-150.0))[0][cut] > 0)


def test_a_body_too_short_on_both_sides_shows_none(trunk, tmp_path: Path) -> None:
    body = load_body(trunk.write(tmp_path / "trunk", slices=slice(11, 45)))
    for seed in range(4):
        assert draw_warp_beside(np.random.default_rng(seed), body, beside(100.0)) is None


def test_a_scan_beside_the_kidneys_lies_anywhere_in_a_long_body(body: RealBody) -> None:
    long = replace(body, lattice=replace(body.lattice, spacing=(15.0, 4.0, 4.0)))
    grid, seen = beside(100.0), []
    for seed in range(8):
        drawn = draw_warp_beside(np.random.default_rng(seed), long, grid)
        assert drawn is not None
        seen.append(drawn[0].points(grid)[0][:, 40, 45].min())
    assert np.ptp(seen) > 200
    assert min(seen) > body.own[1][0]
