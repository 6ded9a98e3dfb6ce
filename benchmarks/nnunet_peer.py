"""nnU-Net v2 on the phantoms of ``learning.py``, in the same minutes, for a row beside ours.

    python benchmarks/learning.py --labels KITS23_LABELS --work DIR
    PEER/bin/python benchmarks/nnunet_peer.py --work DIR [--minutes MINUTES] [--mirror]
    renalseg evaluate DIR/nnunet/predictions --truth DIR/test --out DIR/nnunet/scores

PEER is an environment of its own: ``pip install torch==2.13.0 nnunetv2==2.8.1``. Plan, patch, network, augmentation,
loss and optimiser are nnU-Net's own for the configuration 3d_fullres, with KiTS23's three regions as targets. Its
schedule of 250000 iterations is shortened to the minutes that ours had, if no others are given: the learning rate
falls by the same polynomial, over the share of the time. Planning and preprocessing are not counted. On a CPU that
multiplies in bf16, it trains and predicts in bf16; of itself nnU-Net uses mixed precision on GPUs only. It predicts
with its sliding window of half a patch, and with ``--mirror`` over all three axes, which takes 8 times as long. A
training that is finished is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

NAME = "Dataset001_Phantoms"
PLANS = "nnUNetPlans"
EXPONENT = 0.9
"""Of nnU-Net's polynomial."""


def link(source: Path, target: Path) -> None:
    """Makes ``target`` a link, once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source.resolve())


def convert(work: Path, raw: Path) -> list[Path]:
    """The training phantoms in nnU-Net's layout, as links, and the CTs to predict."""
    cases = sorted(path.parent for path in (work / "train").glob("*/segmentation.nii.gz"))
    for case in cases:
        link(case / "imaging.nii.gz", raw / NAME / "imagesTr" / f"{case.name}_0000.nii.gz")
        link(case / "segmentation.nii.gz", raw / NAME / "labelsTr" / f"{case.name}.nii.gz")
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "regions_class_order": [1, 3, 2]}
    described |= {"numTraining": len(cases), "file_ending": ".nii.gz"}
    (raw / NAME / "dataset.json").write_text(json.dumps(described))
    return sorted((work / "test").glob("*/imaging.nii.gz"))


def plan(preprocessed: Path) -> None:
    """nnU-Net's planning and preprocessing, once."""
    finished = preprocessed / "finished"
    if not finished.exists():
        code = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import *; plan_and_preprocess_entry()"
        options = ["-d", "1", "-c", "3d_fullres", "-np", "2", "-npfp", "2", "--clean"]
        subprocess.run([sys.executable, "-c", code, *options], check=True)
        finished.touch()


def arithmetic() -> AbstractContextManager[Any]:
    """bf16 where the CPU multiplies in it."""
    import torch

    return torch.autocast("cpu", torch.bfloat16) if torch.cpu._is_avx512_bf16_supported() else nullcontext()


def make_trainer(preprocessed: Path) -> Any:
    """nnU-Net's trainer for all training phantoms, ready to train."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((preprocessed / NAME / f"{PLANS}.json").read_text()) | {"continue_training": False}
    described = json.loads((preprocessed / NAME / "dataset.json").read_text())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = nnUNetTrainer(plans, "3d_fullres", "all", described, device)
    trainer.on_train_start()
    return trainer


def train(trainer: Any, minutes: float) -> dict[str, Any]:
    """Trains for ``minutes``; how it went."""
    trainer.network.train()
    started, losses = time.perf_counter(), list[float]()
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** EXPONENT
        with arithmetic():
            losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
    took = (time.perf_counter() - started) / 60
    patch, batch = trainer.configuration_manager.patch_size, trainer.configuration_manager.batch_size
    return {"iterations": len(losses), "minutes": took, "patch": list(patch), "batch": batch, "losses": losses}


def predict(trainer: Any, images: list[Path], out: Path, mirror: bool) -> float:
    """Writes a label map for each image; the seconds of a case."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=mirror, device=trainer.device, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    axes = trainer.inference_allowed_mirroring_axes
    managers = trainer.plans_manager, trainer.configuration_manager
    network = getattr(trainer.network, "_orig_mod", trainer.network)  # what torch.compile wraps
    weights = [network.state_dict()]
    predictor.manual_initialization(network, *managers, weights, trainer.dataset_json, "nnUNetTrainer", axes)
    started = time.perf_counter()
    for image in images:
        with arithmetic():
            predictor.predict_from_files_sequential([[str(image)]], [str(out / image.parent.name)], overwrite=True)
    return (time.perf_counter() - started) / len(images)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="by default those of DIR/result.json")
    parser.add_argument("--mirror", action="store_true")
    a = parser.parse_args()
    minutes = a.minutes or float(json.loads((a.work / "result.json").read_text())["minutes"])
    peer = a.work.resolve() / "nnunet"
    for kind in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{kind}"] = str(peer / kind)
        (peer / kind).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("nnUNet_n_proc_DA", "1")
    images = convert(a.work, peer / "raw")
    plan(peer / "preprocessed")
    trainer, note = make_trainer(peer / "preprocessed"), peer / "nnunet.json"
    checkpoint = str(peer / "checkpoint.pth")
    told = json.loads(note.read_text()) if note.exists() else {}
    if told.get("asked") == minutes:
        trainer.load_checkpoint(checkpoint)
    else:
        told = {"asked": minutes, **train(trainer, minutes)}
        trainer.save_checkpoint(checkpoint)
        note.write_text(json.dumps(told, indent=1))
    out = peer / ("predictions-mirrored" if a.mirror else "predictions")
    out.mkdir(exist_ok=True)
    told[f"{out.name}_case_seconds"] = predict(trainer, images, out, a.mirror)
    note.write_text(json.dumps(told, indent=1))
    print({k: v for k, v in told.items() if k != "losses"})


if __name__ == "__main__":
    main()
