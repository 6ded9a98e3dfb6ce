"""What a prepared cache holds, as its ``index.json`` tells: the dataset, its labelled cases, and the arrays."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from renalseg.config import Config, Stage
from renalseg.core.errors import InputError
from renalseg.io.files import write_json
from renalseg.io.kits import list_cases
from renalseg.train.cache import VERSION, GridName, Prepared, at, grid_of, settings_key

INDEX = "index.json"


def write_index(
    dataset: Path,
    cache: Path,
    config: Config,
    prepared: dict[GridName, list[Prepared]],
    labelled: Sequence[str] | None = None,
) -> None:
    """Notes in ``index.json`` which files belong to these settings, beside what is noted there for others.

    An index that is damaged, of another version or of another dataset starts anew.

    Args:
        dataset: what the arrays were made from; training is told its name.
        cache: folder of the cache.
        config: the settings.
        prepared: the arrays.
        labelled: ids of all cases of ``dataset`` with labels; None looks there.
    """
    grids: dict[str, dict[str, dict[str, str]]] = {}
    with suppress(InputError):
        if is_cache(cache) and (known := open_cache(cache)).dataset == dataset.resolve():
            grids = known.grids
    for grid, cases in prepared.items():
        stems = {p.case_id: p.image.name.removesuffix("-image.npy") for p in cases}
        grids.setdefault(grid, {})[settings_key(grid, config)] = stems
    ids = [c.case_id for c in list_cases(dataset) if c.segmentation] if labelled is None else list(labelled)
    index = {"version": VERSION, "dataset": str(dataset.resolve()), "labelled": ids, "grids": grids}
    write_json(index, cache / INDEX)


@dataclass(frozen=True)
class Cache:
    """A prepared cache as ``index.json`` describes it.

    Attributes:
        path: its folder.
        dataset: the dataset that it was made from; may be gone.
        labelled: ids of all cases of the dataset with labels; folds are drawn over them.
        grids: grid to settings to case to the stem of its files.
    """

    path: Path
    dataset: Path
    labelled: list[str]
    grids: dict[str, dict[str, dict[str, str]]]

    def cases(self, stage: Stage, config: Config) -> dict[str, Prepared]:
        """The prepared cases for a stage and a configuration, by id.

        Raises:
            InputError: none was prepared with these settings, or files are missing.
        """
        grid = grid_of(stage)
        stems = self.grids.get(grid, {}).get(settings_key(grid, config), {})
        found = {case: at(self.path, grid, case, stem) for case, stem in stems.items()}
        if not found:
            raise InputError(
                f"{self.path} holds nothing prepared with these settings; run `renalseg prepare` with them."
            )
        lost = [case for case, prepared in found.items() if not prepared.exists()]
        if lost:
            raise InputError(
                f"{self.path} lacks files of {lost[0]} ({len(lost)} in all); run `renalseg prepare` again."
            )
        return found


def is_cache(path: Path) -> bool:
    """Whether ``path`` is a folder that ``renalseg prepare`` wrote."""
    return (path / INDEX).is_file()


def open_cache(path: Path) -> Cache:
    """Reads ``index.json``.

    Raises:
        InputError: it is damaged or of another version.
    """
    try:
        data = json.loads((path / INDEX).read_text())
        version, dataset = data["version"], Path(data["dataset"])
        grids = {grid: {key: dict(c) for key, c in by_key.items()} for grid, by_key in data["grids"].items()}
        cache = Cache(path, dataset, list(data["labelled"]), grids)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path / INDEX} is damaged ({error}); run `renalseg prepare` again.") from error
    if version != VERSION:
        raise InputError(f"{path} was prepared by another version of renalseg; run `renalseg prepare` again.")
    return cache
