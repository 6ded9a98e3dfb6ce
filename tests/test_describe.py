"""``renalseg describe``: what it costs, what it was trained with, and where each number comes from."""

import re

import pytest
import torch
from rich.console import Console
from torch import nn

from renalseg.config import PRESETS, STAGES, Augmentation, Training, load_config, preset
from renalseg.model.checkpoint import open_weights
from renalseg.model.resunet import build
from renalseg.report.describe import cost, describe


def text(*arguments) -> str:
    console = Console(width=250, color_system=None)
    with console.capture() as captured:
        console.print(describe(*arguments))
    return captured.get()


@pytest.fixture(scope="module")
def paper():
    return text(preset("paper"))


def row(table: str, name: str) -> list[str]:
    """The cells of the first row that starts with ``name``."""
    line = next(line for line in table.splitlines() if re.match(rf"│ {re.escape(name)}\s", line))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_papers_tables_2_and_3_are_printed(paper):
    coarse, fine = (paper[paper.index(f"(the paper's table {n})") :] for n in (2, 3))
    for table, patch, epochs in ((coarse, "128, 128, 128", "300"), (fine, "48, 224, 384", "600")):
        assert row(table, "patch")[1] == patch
        assert row(table, "batch")[1] == "4"
        assert row(table, "epochs")[1] == epochs
        assert row(table, "learning_rate")[1] == row(table, "weight_decay")[1] == "0.0001"
        assert row(table, "optimiser, schedule")[1] == "AdamW, cosine annealing"
        assert row(table, "initialisation")[1] == "He normal"
    assert row(fine, "epochs")[1] == row(fine, "epochs")[2]


def test_the_packaged_weights_tell_what_they_are(run):
    code, out, _ = run("describe", "--weights", "default")
    assert code == 0
    printed = " ".join(out.split())
    for said in ("Research use only, not a medical device", "CC BY-NC-SA 4.0", "fold 0", "Known limits", "Trained on"):
        assert said in printed


def test_every_setting_has_a_source(paper):
    nested = [f"augmentation.{name}" for name in Augmentation.model_fields]
    for name in [*(Training.model_fields.keys() - {"augmentation"}), *nested, "preparation.roi"]:
        assert re.search(r"paper|settled|measured|et al\.|as in MONAI", row(paper, name)[-1]), name
    for name, source in (
        ("coarse.shape", "paper 2.1"),
        ("clean.min_voxels", "paper 2.3"),
        ("fine.window", "paper 2.1"),
    ):
        assert source in row(paper, name)[-1]
    assert preset("paper").sha256()[:16] in paper


def test_parameters_and_cost_of_each_stage_are_printed(paper):
    table = paper[paper.index("Cost of a forward pass") :]
    for stage in STAGES:
        found = cost(preset("paper"), stage)
        assert row(table, stage)[2:] == [
            f"{found.parameters:,}",
            f"{found.gflop:,.1f}",
            f"{found.activations_mb:,.0f}",
        ]
        assert found.parameters == sum(p.numel() for p in build(preset("paper").network(stage)).parameters())


def test_flops_are_those_of_the_convolutions(small_config):
    network, flops = build(small_config.network("kidney")), []

    def count(module, inputs, output):
        turned = isinstance(module, nn.ConvTranspose3d)  # there each input voxel meets the kernel, else each output one
        voxels = (inputs[0] if turned else output)[0, 0].numel()
        flops.append(2 * voxels * module.weight.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 1, *small_config.training["kidney"].patch))
    assert cost(small_config, "kidney").gflop == pytest.approx(sum(flops) / 1e9)


def test_a_2_5d_network_keeps_its_slices(paper):
    layers = paper[paper.index("kidney: 1 x 48 x 224 x 384") : paper.index("lesion: 1 x 48 x 224 x 384")]
    shapes = re.findall(r"│ (\d+) x (\d+) x \d+ x \d+", layers)
    assert len(shapes) >= 8
    assert {z for _, z in shapes} == {"48"}


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_comes_back(name, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(preset(name).to_yaml())
    assert load_config(path) == preset(name)
    assert load_config(path).sha256() == preset(name).sha256()


def test_weights_are_listed_with_names_in_brackets(small_config, small_weights, tmp_path):
    folder = tmp_path / "weights[1]"
    folder.mkdir()
    for path in small_weights.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "MODEL_CARD.md").write_text("# What they are\n\nThresholds.")
    weights = open_weights(folder)
    weights.manifest["stages"]["kidney"]["trained_on"] = {"dataset": "kits[bold]", "fold": None}
    printed = text(small_config, weights)
    assert f"Weights weights[1]  {weights.sha256[:16]}" in printed
    assert row(printed[printed.index("Weights weights[1]") :], "kidney")[-1] == "dataset kits[bold]"
    assert "What they are" in printed
