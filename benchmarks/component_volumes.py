"""Volumes of the connected components of kidney, tumor and cyst together: what the size rules may drop.

    python benchmarks/component_volumes.py KITS23_LABELS

Prints the ten smallest components above 1 ml and the ten largest below it, over all cases.
"""

import sys
from pathlib import Path

from renalseg.image.components import drop_small
from renalseg.io.kits import list_cases, read_labels


def main() -> None:
    volumes = []
    for case in list_cases(Path(sys.argv[1])):
        labels = read_labels(case.segmentation)
        _, kept, _ = drop_small(labels.array > 0, labels.voxel_mm3, 0, 0.0)
        volumes += [(round(c.volume_mm3 / 1000, 2), case.case_id) for c in kept]
    print("smallest above 1 ml:", sorted(v for v in volumes if v[0] > 1)[:10])
    print("largest below 1 ml:", sorted((v for v in volumes if v[0] <= 1), reverse=True)[:10])


if __name__ == "__main__":
    main()
