"""What is drawn beside kidneys and masses: arms, table, build, stranding, bowel, odd kidneys, calcium, shading."""

import numpy as np
import pytest
from scipy import ndimage

from renalseg.phantom import acquisition, anatomy, kidney, physique
from renalseg.phantom.acquisition import NoiseTiles
from renalseg.phantom.anatomy import paint_body
from renalseg.phantom.draws import Contrast, draw_contrast
from renalseg.phantom.fields import Lattice, ellipsoid
from renalseg.phantom.kidney import draw_kidney, parenchyma_hu
from renalseg.phantom.pathology import TUMOR_KINDS, TumorKind, cyst_hu, tumor_hu
from renalseg.phantom.physique import PERIRENAL_MM, Physique, draw_physique
from renalseg.phantom.scene import KeepOut, Renal, draw_renal

FIELD_MM = 420.0
LATTICE = Lattice((-24.0, -24.0, -24.0), (1.5, 1.5, 1.5), (33, 33, 33))
ARTERIAL = Contrast("arterial", {"cortex": 200.0, "medulla": 120.0, "muscle": 60.0})


def sphere(radius: float) -> np.ndarray:
    z, y, x = (LATTICE.axis(i) for i in range(3))
    return ellipsoid((z[:, None, None], y[None, :, None], x[None, None, :]), (0, 0, 0), (radius,) * 3)


def points(lattice: Lattice) -> tuple[np.ndarray, ...]:
    z, y, x = (lattice.axis(i) for i in range(3))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def painted(seed: int, with_kidneys: bool = False, wide: float = 260.0) -> tuple[np.ndarray, Lattice, Physique, Renal]:
    """A body on a coarse lattice of 120 mm round the kidneys, its physique, and kidneys that may be left out of it."""
    rng = np.random.default_rng(seed)
    contrast, body = draw_contrast(rng), draw_physique(rng, FIELD_MM)
    bounds = KeepOut((body.cavity_half[0] + 5, body.cavity_half[1] + 5), body.cavity_y, body.spine_y)
    renal = draw_renal(rng, contrast, body.spine_y, body.fat_mm, bounds)
    lattice = Lattice.covering((-60.0, -180.0, -wide), (60.0, 240.0, wide), (6.0, 4.0, 4.0))
    return paint_body(rng, lattice, body, contrast, renal if with_kidneys else None), lattice, body, renal


def test_arms_lie_beside_some_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    def bones(share: float) -> int:
        """Voxels of bone beside the trunk, in front of the table."""
        monkeypatch.setattr(anatomy, "ARMS_SHARE", share)
        hu, lattice, body, _ = painted(3, wide=340.0)
        _, y, x = points(lattice)
        beside = (np.abs(x) > body.half[1] + 12) & (y < body.half[0] - 30)
        return int(((hu > 250) & beside).sum())

    assert 0 < anatomy.ARMS_SHARE < 0.5
    assert bones(0.0) == 0
    assert bones(1.0) > 20 * 2 * 5  # slices, sides, and a shaft of a few voxels


@pytest.mark.parametrize("seed", range(3))
def test_every_body_lies_on_a_table(seed: int) -> None:
    hu, lattice, body, _ = painted(seed)
    _, y, x = points(lattice)
    behind = (y > body.half[0] + 3) & (y < body.half[0] + 90) & (np.abs(x) < 60)
    table = (hu > -955) & behind
    assert table.any(axis=(1, 2)).all()
    assert (table.any(axis=(0, 1))[np.abs(lattice.axis(2)) < 60]).all()  # a plate, as wide as the body
    assert (hu[np.broadcast_to(behind, hu.shape) & (y > body.half[0] + 85)] < -955).all()


def test_bodies_are_lean_and_obese_and_some_are_wider_than_the_field() -> None:
    rng = np.random.default_rng(0)
    bodies = [draw_physique(rng, FIELD_MM) for _ in range(600)]
    widths, fat = np.array([b.half[1] for b in bodies]), np.array([b.fat_mm for b in bodies])
    assert widths.min() < 0.78 * FIELD_MM / 2
    assert 0.03 < np.mean(widths > FIELD_MM / 2) < 0.15
    assert PERIRENAL_MM[0] <= fat.min() < 1.5
    assert PERIRENAL_MM[1] >= fat.max() > 30
    assert np.corrcoef(widths, fat)[0, 1] > 0.3
    small = np.mean([draw_physique(rng, 320.0).half[1] for _ in range(100)])
    assert small < widths.mean() - 20


def test_a_body_is_never_too_small_for_its_kidneys() -> None:
    for seed in range(20):
        body = draw_physique(np.random.default_rng(seed), 300.0, least=(130.0, 200.0))
        assert body.half[0] >= 165
        assert body.half[1] >= 230


def test_fat_is_stranded_close_to_some_kidneys() -> None:
    near = sphere(10)
    strands = [anatomy._stranding(np.random.default_rng(seed), LATTICE, near) for seed in range(120)]
    assert all((s >= 0).all() for s in strands)
    shell, beyond = (near > 1) & (near < 5), near > 15
    heights = np.array([s[shell].mean() for s in strands])
    assert np.median(heights) < 3
    assert 0.1 < np.mean(heights > 8) < 0.4
    assert np.mean([s[beyond].mean() for s in strands]) < 0.5 * heights.mean()


def test_organs_reach_some_kidneys_and_fat_parts_others_from_them() -> None:
    shares = []
    for seed in range(12):
        hu, lattice, body, renal = painted(seed, with_kidneys=True, wide=160.0)
        lying = lattice.window(renal.lattice.origin, tuple(float(renal.lattice.axis(i)[-1]) for i in range(3)))
        part = anatomy.part_of(lattice, lying)
        near = anatomy.resample(renal.occupied, renal.lattice, part)
        shell = (near > 4) & (near < 14)
        shares.append((float((hu[lying][shell] > -20).mean()), body.fat_mm))
    touching, fat = np.array(shares).T
    assert touching.max() > 0.5
    assert touching.min() < 0.2
    assert np.corrcoef(touching, fat)[0, 1] < -0.3


def test_kidneys_are_malrotated_or_ptotic_in_some_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(malrotated: float, ptotic: float) -> tuple[np.ndarray, np.ndarray]:
        """How far the lateral side looks sideways, and the heights."""
        monkeypatch.setattr(kidney, "MALROTATED_SHARE", malrotated)
        monkeypatch.setattr(kidney, "PTOTIC_SHARE", ptotic)
        shapes = [draw_kidney(np.random.default_rng(seed), 1, 160.0, 45.0, 10.0) for seed in range(200)]
        return np.array([s.axes[1][2] for s in shapes]), np.array([s.centre[0] for s in shapes])

    usual, heights = drawn(kidney.MALROTATED_SHARE, kidney.PTOTIC_SHARE)
    assert 0.005 < np.mean(usual < 0.5) < 0.1
    assert 0.01 < np.mean(heights > 25) < 0.15
    lateral, height = drawn(0.0, 0.0)
    assert lateral.min() > 0.5  # the hilum looks to the midline
    turned, _ = drawn(1.0, 0.0)
    assert np.mean(turned < 0.5) > 0.25
    _, low = drawn(0.0, 1.0)
    assert low.mean() - height.mean() == pytest.approx(70, abs=10)


def test_cortex_outlines_pyramids_where_contrast_is_early_only() -> None:
    hull = sphere(20)
    rng = np.random.default_rng(4)

    def difference(cortex: float, medulla: float) -> float:
        contrast = Contrast("any", {"cortex": cortex, "medulla": medulla})
        parts = []
        for _ in range(8):
            hu = parenchyma_hu(rng, LATTICE, points(LATTICE), -hull, np.float32(20) + hull, contrast)
            parts.append(hu[(hull < 0) & (hull > -2)].mean() - hu[(hull < -9) & (hull > -13)].mean())
        return float(np.mean(parts))

    assert difference(200.0, 80.0) > 25
    assert abs(difference(150.0, 150.0)) < 12


def test_one_kidney_may_lag_behind_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kidney, "UNEQUAL_SHARE", 1.0)
    monkeypatch.setattr(kidney, "PATCHY_SHARE", 0.0)
    factors = [kidney._perfusion(np.random.default_rng(s), LATTICE, points(LATTICE)).ravel() for s in range(40)]
    lags = np.array([f[0] / f[-1] for f in factors])
    assert (np.minimum(lags, 1 / lags) < 0.96).all()
    assert 0.2 < np.mean(lags < 1) < 0.8  # on either side


def test_some_cysts_are_calcified() -> None:
    rng, distance = np.random.default_rng(5), sphere(15)
    hottest = np.array([cyst_hu(rng, LATTICE, -distance)[distance < 0].max() for _ in range(250)])
    assert 0.03 < np.mean(hottest > 180) < 0.15
    assert np.median(hottest) < 100


@pytest.mark.parametrize("kind", ["angiomyolipoma", "clear cell"])
def test_angiomyolipomas_alone_hold_fat(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: TumorKind = TUMOR_KINDS[kind]
    monkeypatch.setattr("renalseg.phantom.pathology.draw_tumor_kind", lambda _: chosen)
    rng, distance = np.random.default_rng(6), sphere(18)
    share = np.mean([(tumor_hu(rng, LATTICE, -distance, ARTERIAL)[distance < -2] < -15).any() for _ in range(60)])
    assert share > 0.5 if kind == "angiomyolipoma" else share < 0.05


def test_some_scans_are_shaded() -> None:
    rng = np.random.default_rng(7)
    spans = np.array([np.ptp(acquisition._shading(rng, (32, 40))) for _ in range(300)])
    assert np.median(spans) < 8
    assert 0.05 < np.mean(spans > 12) < 0.3


def test_some_scans_have_streaks_along_the_bodys_width(monkeypatch: pytest.MonkeyPatch) -> None:
    def widths(share: float) -> float:
        """How much longer the grains of noise are from side to side than from front to back."""
        monkeypatch.setattr(acquisition, "STREAKY_SHARE", share)
        rng = np.random.default_rng(8)
        noise = NoiseTiles(rng, (160, 160), 1.2).draw(rng)
        steps = [float(np.diff(noise, axis=axis).std()) for axis in (0, 1)]
        return steps[0] / steps[1]

    assert widths(0.0) == pytest.approx(1, abs=0.1)
    assert widths(1.0) > 1.3


def test_bowel_lies_in_the_cavity_with_gas_and_stool() -> None:
    gas = []
    for seed in range(6):
        hu, lattice, body, _ = painted(seed)
        _, y, x = points(lattice)
        inside = ((y - body.cavity_y) / body.cavity_half[0]) ** 2 + (x / body.cavity_half[1]) ** 2 < 0.8
        inside = inside & np.ones(hu.shape, bool)
        bubbles, count = ndimage.label((hu < -300) & inside)
        gas.append(count)
        if count:
            heights = np.array(ndimage.center_of_mass(bubbles > 0))
            assert lattice.axis(1)[round(heights[1])] < body.spine_y  # gas rises to the front
    assert max(gas) > 3
    assert physique.TRUNCATED_SHARE < 0.5
