import numpy as np

from renalseg.phantom.anatomy import clear_bed
from renalseg.phantom.fields import Lattice, ellipsoid
from renalseg.phantom.findings import Findings, draw_findings
from renalseg.phantom.scene import Layer, Renal

LATTICE = Lattice((-30.0, -30.0, -30.0), (1.5, 1.5, 1.5), (41, 41, 41))
HILA = ((0.0, 0.0, -50.0), (0.0, 0.0, 50.0))


def sphere(lattice: Lattice, radius: float):
    z, y, x = (lattice.axis(i) for i in range(3))
    return ellipsoid((z[:, None, None], y[None, :, None], x[None, None, :]), (0, 0, 0), (radius,) * 3)


def test_rates() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_findings(rng, HILA) for _ in range(800)]
    dilated = np.mean([any(f.dilated) for f in drawn])
    assert 0.12 < dilated < 0.26
    assert 0.03 < np.mean([bool(f.metal) for f in drawn]) < 0.1
    assert draw_findings(rng, ()).metal == ()


def test_dilation_is_that_of_the_side() -> None:
    findings = Findings(HILA, (0.0, 0.7))
    assert np.allclose(findings.dilation(np.array([-40.0, -1.0, 3.0, 60.0], np.float32)), [0, 0, 0.7, 0.7])


def test_stones_lie_at_the_sinus_in_some_cases() -> None:
    sinus = sphere(LATTICE, 8)
    stony = 0
    for seed in range(150):
        tissue = np.full(LATTICE.shape, 100.0, np.float32)
        Findings().add_stones(np.random.default_rng(seed), LATTICE, sinus, tissue)
        dense = tissue > 200
        stony += bool(dense.any())
        assert not dense[sinus > 14].any()
    assert 0.05 < stony / 150 < 0.22


def test_the_bed_is_as_thick_as_the_fat() -> None:
    body = Lattice((-70.0, -70.0, -70.0), (2.5, 2.0, 2.0), (57, 71, 71))
    occupied = sphere(LATTICE, 15)
    renal = Renal(LATTICE, (Layer(None, occupied, occupied),), occupied, ())
    radius = np.sqrt(np.square(np.meshgrid(*(body.axis(i) for i in range(3)), indexing="ij")).sum(axis=0))
    shares = []
    for fat_mm in (1.0, 12.0, 35.0):
        hu = np.full(body.shape, 60.0, np.float32)
        clear_bed(hu, body, None, np.random.default_rng(1), fat_mm, renal)
        assert (hu[radius < 12] < -50).all()
        assert (hu[radius > 15 + 2.2 * fat_mm + 6] == 60).all()
        shares.append(np.mean(hu[(radius > 18) & (radius < 40)] < -30))
    assert shares[0] < 0.02 < shares[1] < shares[2]
    assert shares[2] > 0.7
