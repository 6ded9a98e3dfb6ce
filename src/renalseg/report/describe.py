"""A configuration or weights, described: layers, parameters, cost, and the paper's tables 2 and 3 as configured."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from renalseg.config import STAGES, Config, Network, Stage
from renalseg.model.checkpoint import Weights
from renalseg.model.resunet import ResUnet, build


@dataclass(frozen=True)
class Cost:
    """What one training patch costs in a network."""

    parameters: int
    gflop: float
    """One forward pass over the patch; a multiplication and an addition count as two."""
    activations_mb: float
    """All outputs of the network's layers for one patch in fp32, in 1e6 bytes: what training keeps, half in bf16."""


def cost(config: Config, stage: Stage) -> Cost:
    """Parameters and FLOPs of ``stage`` for its patch, counted without computing anything."""
    network = build(config.network(stage)).to("meta")
    patch = torch.empty(1, 1, *config.training[stage].patch, device="meta")
    voxels: list[int] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, output: voxels.append(output.numel()))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(patch)
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, counter.get_total_flops() / 1e9, 4 * sum(voxels) / 1e6)


def describe(config: Config, weights: Weights | None = None) -> RenderableType:
    """Everything about a configuration, to print: networks, cost, training protocol, and each number's source."""
    parts: list[RenderableType] = [Text.assemble((config.name, "bold"), f"  configuration {config.sha256()[:16]}")]
    parts += [_layers(config, stage) for stage in STAGES]
    parts += [_costs(config), _protocol(config, ("coarse",), 2), _protocol(config, ("kidney", "lesion"), 3)]
    parts.append(_cascade(config))
    if weights is not None:
        parts.append(_files(weights))
        if weights.card:
            parts.append(Markdown(weights.card))
    return Group(*parts)


def _layers(config: Config, stage: Stage) -> Table:
    network = build(config.network(stage)).to("meta")
    patch = config.training[stage].patch
    table = Table(title=f"{stage}: 1 x {_x(patch)} -> {', '.join(config.network(stage).classes)}", title_justify="left")
    for column in ("layer", "kernel", "stride", "output (channels x z x y x x)", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for row in _trace(network, patch):
        table.add_row(*row)
    return table


def _trace(network: ResUnet, patch: tuple[int, int, int]) -> Iterator[tuple[str, str, str, str, str]]:
    """Every block in the order of the data, with the shape that comes out of it."""
    rows: list[tuple[str, str, str, str, str]] = []
    strides = ((1, 1, 1), *network.config.strides)
    named: list[tuple[str, nn.Module, str, str]] = []
    stem = _x(network.config.stem)
    if max(network.config.stem) > 1:
        named.append(("space to depth", network.stem, "-", stem))
    for level, block in enumerate(network.encoder):
        named.append((f"encoder {level}", block, _x(network.config.kernels[level]), _x(strides[level])))
    if network.config.psp_bins:
        named.append(("psp pooling", network.bottleneck, "1 x 1 x 1", "1 x 1 x 1"))
    top = len(network.decoder) - 1
    for i, (up, block) in enumerate(zip(network.up, network.decoder, strict=True)):
        level = top - i
        named.append((f"up {level}", up, _x(strides[level + 1]), f"1/({_x(strides[level + 1])})"))
        named.append((f"decoder {level}", block, _x(network.config.kernels[level]), "1 x 1 x 1"))
    named.append(("head", network.head, "1 x 1 x 1", "1 x 1 x 1"))
    if max(network.config.stem) > 1:
        named.append(("depth to space", network.unfold, "-", f"1/({stem})"))

    def note(name: str, kernel: str, stride: str) -> object:
        def hook(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            parameters = sum(p.numel() for p in module.parameters())
            rows.append((name, kernel, stride, _x(tuple(output.shape[1:])), f"{parameters:,}"))

        return hook

    handles = [m.register_forward_hook(note(n, k, s)) for n, m, k, s in named]  # type: ignore[arg-type]
    with torch.no_grad():
        network(torch.empty(1, 1, *patch, device="meta"))
    for handle in handles:
        handle.remove()
    return iter(rows)


def _costs(config: Config) -> Table:
    table = Table(title="Cost of a forward pass over one patch", title_justify="left")
    for column in ("stage", "patch", "parameters", "GFLOP", "activations, fp32 MB"):
        table.add_column(column, justify="left" if column in ("stage", "patch") else "right")
    for stage in STAGES:
        found = cost(config, stage)
        figures = f"{found.parameters:,}", f"{found.gflop:,.1f}", f"{found.activations_mb:,.0f}"
        table.add_row(stage, _x(config.training[stage].patch), *figures)
    return table


def _protocol(config: Config, stages: tuple[Stage, ...], number: int) -> Table:
    """The paper's table 2 or 3, with this configuration's numbers and where each comes from."""
    table = Table(title=f"Training of {' and '.join(stages)} (the paper's table {number})", title_justify="left")
    for column in ("setting", *stages, "source"):
        table.add_column(column)
    table.add_row("initialisation", *("He normal" for _ in stages), "paper table 2")
    table.add_row("optimiser, schedule", *("AdamW, cosine annealing" for _ in stages), "paper tables 2 and 3")
    columns = [_flat(config.training[stage]) for stage in stages]
    for name, (_, source) in columns[0].items():
        table.add_row(name, *(_show(column[name][0]) for column in columns), source)
    return table


def _flat(model: BaseModel, prefix: str = "") -> dict[str, tuple[object, str]]:
    """Value and source of every setting of a model and of the models in it, by dotted name; networks are left out."""
    found: dict[str, tuple[object, str]] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Network):
            continue
        if isinstance(value, BaseModel):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value, field.description or ""
    return found


def _cascade(config: Config) -> Table:
    table = Table(title="Cascade", title_justify="left")
    for column in ("setting", "value", "source"):
        table.add_column(column)
    parts: dict[str, BaseModel] = {
        "intensity": config.intensity,
        "coarse": config.coarse,
        "fine": config.fine,
        "clean": config.clean,
        "preparation": config.preparation,
    }
    for part, model in parts.items():
        for name, (value, source) in _flat(model, f"{part}.").items():
            table.add_row(name, _show(value), source)
    return table


def _files(weights: Weights) -> Table:
    table = Table(title=Text(f"Weights {weights.path.name}  {weights.sha256[:16]}"), title_justify="left")
    for column in ("stage", "sha256", "MB", "trained on"):
        table.add_column(column)
    for stage, file in weights.files.items():
        trained = weights.manifest["stages"][stage]["trained_on"]
        text = ", ".join(f"{k} {v}" for k, v in trained.items() if v is not None)
        table.add_row(stage, weights.hashes[stage][:16], f"{file.stat().st_size / 1e6:.2f}", Text(text))
    return table


def _x(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in sizes)


def _show(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
