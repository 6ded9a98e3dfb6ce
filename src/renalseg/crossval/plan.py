"""What a cross validation is to do, on which data, and what of it was done before."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from renalseg.config import STAGES, Config, Stage, sha256_today
from renalseg.core.errors import ConfigError, InputError, WeightsError
from renalseg.io.files import check_writable, write_json, write_text
from renalseg.io.kits import KitsCase, fold_split, list_cases, trainable_cases
from renalseg.model.checkpoint import open_weights
from renalseg.train.index import is_cache, open_cache
from renalseg.train.state import read_progress

ALL_FOLDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Plan:
    """What a user asks for; see ``renalseg crossval --help``."""

    data: Path
    out: Path
    config: Config
    folds: tuple[int, ...] = ALL_FOLDS
    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    validation_cases: int = 4
    deterministic: bool = False

    def weights(self, fold: int) -> Path:
        """The weights folder of a fold."""
        return self.out / f"fold_{fold}"

    @property
    def predictions(self) -> Path:
        """The folder of all held-out cases' results."""
        return self.out / "predictions"

    @property
    def evaluation(self) -> Path:
        """The folder of all scores."""
        return self.out / "evaluation"

    def scores(self, fold: int) -> Path:
        """The folder of a fold's scores."""
        return self.evaluation / f"fold_{fold}"


@dataclass(frozen=True)
class Reports:
    """Where a cross validation tells how far it is."""

    say: Callable[[str], None] = lambda sentence: None
    """Sentences: what begins, and what is skipped because it is done."""
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
    """Progress within one piece of work: its name, done, total."""


SILENT = Reports()
"""Tells nobody."""


@dataclass(frozen=True)
class Data:
    """The dataset: its folder, the ids that folds are drawn over, and the cases with image and labels."""

    dataset: Path
    labelled: list[str]
    cases: dict[str, KitsCase]

    def held_out(self, fold: int) -> list[str]:
        """Ids of the cases that a fold predicts."""
        return [i for i in fold_split(self.labelled, fold)[1] if i in self.cases]

    @property
    def left_out(self) -> list[str]:
        """Ids of the cases with labels and without an image, which neither train nor are predicted."""
        return [i for i in self.labelled if i not in self.cases]


def open_data(plan: Plan) -> Data:
    """The dataset behind ``plan.data``, checked before any work."""
    dataset, labelled, prepared = plan.data, None, None
    if is_cache(plan.data):
        if plan.config.preparation.roi == "coarse":
            raise ConfigError(
                f"{plan.data}: with preparation.roi 'coarse' the regions of a cache come from one network, which may "
                "have seen cases that a fold holds out; give the dataset as --data, so that each fold finds its own"
            )
        cache = open_cache(plan.data)
        prepared = set.intersection(*(set(cache.cases(stage, plan.config)) for stage in STAGES))
        dataset, labelled = cache.dataset, cache.labelled
        if not dataset.is_dir():
            raise InputError(
                f"{dataset}: held-out cases are predicted from the CT scans that {plan.data} was prepared from; bring "
                "them back, or give the dataset as --data"
            )
    known = list_cases(dataset)
    if labelled is None:
        labelled = [c.case_id for c in known if c.segmentation]
    elif gone := sorted(set(labelled) - {c.case_id for c in known if c.segmentation}):
        raise InputError(f"{dataset} lacks {gone[0]} ({len(gone)} in all), which {plan.data} knows; bring them back.")
    usable = {c.case_id: c for c in trainable_cases(dataset)}
    if prepared is not None and (new := sorted(usable.keys() & set(labelled) - prepared)):
        raise InputError(
            f"{plan.data} lacks {new[0]} ({len(new)} in all), whose image came later or was left out; run "
            "`renalseg prepare` again"
        )
    return Data(dataset, labelled, usable)


def begin(plan: Plan, data: Data) -> None:
    """Notes what is begun in ``plan.out``, or makes sure that it is the same as before."""
    ids = hashlib.sha256("\n".join(data.labelled).encode()).hexdigest()[:16]
    name = data.dataset.resolve().name
    inputs = {"config_sha256": plan.config.sha256(), "dataset": name, "cases": len(data.labelled), "cases_sha256": ids}
    path = plan.out / "inputs.json"
    check_writable(plan.out)
    if not path.exists():
        write_text(plan.config.to_yaml(), plan.out / "config.yaml")
        write_json(inputs, path)
        return
    try:
        known = json.loads(path.read_text())
        before = {key: known[key] for key in inputs}
        before["config_sha256"] = sha256_today(before["config_sha256"], plan.out / "config.yaml")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); delete it if nothing was changed") from error
    if before["config_sha256"] != inputs["config_sha256"]:
        raise ConfigError(
            f"{plan.out} was begun with another configuration; go on with --config {plan.out / 'config.yaml'}, or give "
            "another --out"
        )
    if before != inputs:
        raise ConfigError(
            f"{plan.out} was begun with {before['cases']} cases of {before['dataset']}, now there are "
            f"{inputs['cases']} of {name}, not the same ones; give the dataset that it was begun with, or another --out"
        )


def is_finished(plan: Plan, fold: int, stage: Stage) -> bool:
    """Whether a stage has run all its epochs, and its weights in the fold's folder are those of the last one.

    Weights of another epoch, which validation on held-out cases chose, or whose manifest was not written any more, are
    no reason to train anew: a training that goes on puts the last ones there.

    Raises:
        ConfigError: it was trained with another configuration, or for another fold. WeightsError: a file is damaged.
    """
    folder = plan.weights(fold)
    path = folder / stage / "last.safetensors"
    if not path.exists():
        return False
    try:
        progress = read_progress(path)
        noted, epoch, of = progress["config_sha256"], progress["epoch"], progress["trained_on"]["fold"]
    except (WeightsError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error}); delete {folder} to train this fold anew") from error
    if sha256_today(noted, folder / "config.yaml") != plan.config.sha256():
        raise ConfigError(
            f"{path.parent} was trained with another configuration; go on with --config {folder / 'config.yaml'}, or "
            "give another --out"
        )
    if of != fold:
        raise ConfigError(f"{path.parent} was trained for fold {of}, not {fold}; give another --out")
    _check_beginning(plan, fold, stage, progress["trained_on"].get("start_from"))
    epochs = plan.config.training[stage].epochs
    if epoch < epochs:
        return False
    weights = open_weights(folder)
    if stage not in weights.files:
        raise WeightsError(f"{folder}: the weights of {stage} are gone; delete {folder} to train this fold anew")
    return weights.is_whole(stage) and weights.manifest["stages"][stage].get("trained_on", {}).get("epoch") == epochs


def _check_beginning(plan: Plan, fold: int, stage: Stage, began: str | None) -> None:
    """Makes sure that a lesion stage that was begun started from the kidney network that the fold will be scored with.

    Trained by hand, it may have started from one that validation on held-out cases chose.
    """
    if stage != "lesion" or plan.config.training[stage].start_from == "random":
        return
    folder = plan.weights(fold)
    kidney = open_weights(folder).manifest["stages"].get("kidney", {})
    is_last = kidney.get("trained_on", {}).get("epoch") == plan.config.training["kidney"].epochs
    if not is_last or began != f"kidney {kidney['sha256'][:16]}":
        raise WeightsError(
            f"{folder}: its lesion network began with another kidney network than that of the last epoch, one that "
            "held-out cases may have chosen; delete the folder to train this fold anew"
        )
