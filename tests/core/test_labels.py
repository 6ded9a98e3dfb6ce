"""The label table, against KiTS23's published values."""

import numpy as np
import pytest

from renalseg.core.labels import HECS, LABELS, PAINT_ORDER


def test_ids_and_names():
    assert {label.id: label.name for label in LABELS} == {1: "kidney", 2: "tumor", 3: "cyst"}
    assert PAINT_ORDER == (1, 3, 2)
    assert len({label.snomed for label in LABELS}) == len({label.colour for label in LABELS}) == 3


@pytest.mark.parametrize(
    ("index", "name", "ids", "tolerance"),
    [(0, "kidney", (1, 2, 3), 1.0330772532), (1, "masses", (2, 3), 1.1328796488), (2, "tumor", (2,), 1.1498198361)],
)
def test_evaluation_classes(index, name, ids, tolerance):
    hec = HECS[index]
    assert (hec.name, hec.ids) == (name, ids)
    assert hec.tolerance_mm == pytest.approx(tolerance, abs=1e-9)
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2)
    np.testing.assert_array_equal(hec.mask(labels), np.isin(labels, ids))
