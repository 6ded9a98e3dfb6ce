"""``lean``: the networks slab by slab give what ``resunet`` gives."""

import pytest
import torch

from renalseg.config import PRESETS, STAGES
from renalseg.model import layers
from renalseg.model import slabs as module
from renalseg.model.lean import LeanResUnet, lean
from renalseg.model.resunet import build

SHAPES = {"coarse": (2, 1, 32, 32, 32), "kidney": (2, 1, 13, 32, 48), "lesion": (2, 1, 13, 32, 48)}


def made(preset, stage):
    """A network as trained ones are: norms that scale and shift."""
    network = build(PRESETS[preset].network(stage), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("slab_bytes", [1, 2**17, 2**30])
def test_equals_the_network_in_fp32(preset, stage, slab_bytes, monkeypatch):
    """A slice at a time, some, or all at once: within 1e-4 of logits of size 1, in float32."""
    monkeypatch.setattr(module, "SLAB_BYTES", slab_bytes)
    network = made(preset, stage)
    image = torch.randn(SHAPES[stage], generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted, found = network(image), lean(network, torch.float32)(image)
    assert isinstance(lean(network, torch.float32), LeanResUnet)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("stage", STAGES)
def test_is_close_in_bf16(stage, onednn, monkeypatch):
    if not onednn:  # as on a CPU without AVX-512
        monkeypatch.setattr(layers, "_onednn_takes", lambda dtype: False)
    network = made("tiny", stage)
    image = torch.randn(SHAPES[stage], generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted, found = network(image), lean(network, torch.bfloat16)(image)
    error = (found - wanted).abs().mean() / wanted.std()
    assert 0 < error < 0.05


def test_networks_with_parts_that_it_does_not_know_stay_as_they_are():
    config = PRESETS["tiny"].fine.kidney.model_copy(update={"psp_bins": (1, 2)})
    network = build(config)
    assert lean(network, torch.float32) is network


@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_the_decoder_uses_up_what_it_gets(preset, monkeypatch):
    """So that skip and shortcut of the largest level are never there as a whole at once."""
    monkeypatch.setattr(module, "SLAB_BYTES", 2**17)
    used = []
    merge = module.Block.merge

    def watched(block, x, skip, up):
        result = merge(block, x, skip, up)
        used.append(sum(part.numel() for slabs in (x, skip) for part in slabs.parts))
        return result

    monkeypatch.setattr(module.Block, "merge", watched)
    network = made(preset, "lesion")
    with torch.inference_mode():
        lean(network, torch.float32)(torch.randn(SHAPES["lesion"]))
    assert used == [0] * 6  # three levels, two samples


@pytest.mark.parametrize(
    ("step", "stop", "left"), [(4, 3, [4, 4, 2]), (4, 4, [0, 4, 2]), (4, 9, [0, 0, 2]), (4, 10, [0, 0, 0])]
)
def test_slabs_are_let_go_once_no_slice_is_needed(step, stop, left):
    slabs = module.Slabs([torch.zeros(n, 1, 1, 1) for n in (4, 4, 2)], step)
    slabs.let_go(stop)
    assert [part.numel() for part in slabs.parts] == left
    assert slabs.size == (10, 1, 1, 1)
    for start in range(stop, 10):
        assert slabs.cut(start, 10).shape[0] == 10 - start
