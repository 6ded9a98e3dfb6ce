"""``resunet``: shapes, what 2.5D means, initialisation, gradients. Shapes are computed on the meta device."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from renalseg.config import PRESETS, STAGES, Network
from renalseg.model.resunet import (
    Conv3d,
    DepthToSpace,
    InstanceNorm,
    PspPooling,
    ResidualBlock,
    ResUnet,
    SpaceToDepth,
    build,
)

FINE = [(name, stage) for name in PRESETS for stage in ("kidney", "lesion")]
WIDE = {"dilations": (1, 2)}, {"psp_bins": (1, 2, 4)}, {"dilations": (1, 3), "psp_bins": (2,), "blocks": 2}


def on_meta(config: Network) -> ResUnet:
    with torch.device("meta"):
        return ResUnet(config)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def without_norm(network: nn.Module) -> nn.Module:
    """The network with its normalisation, which sees all slices, replaced by nothing."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm | nn.InstanceNorm3d):
                setattr(module, name, nn.Identity())
    return network


def touched(network: nn.Module, image: torch.Tensor, z: int) -> list[int]:
    """In which slices the output changes when slice ``z`` of the input does."""
    other = image.clone()
    other[:, :, z] += 1.0
    with torch.no_grad():
        difference = (network(image) - network(other)).abs().amax((0, 1, 3, 4))
    return difference.nonzero().flatten().tolist()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PRESETS)
def test_output_shape_of_every_preset(name, stage):
    config = PRESETS[name].network(stage)
    patch = PRESETS[name].training[stage].patch
    image = torch.empty(2, 1, *patch, device="meta")
    assert on_meta(config)(image).shape == (2, len(config.classes), *patch)


@pytest.mark.parametrize(("name", "stage"), FINE)
def test_no_stride_along_z(name, stage):
    config = PRESETS[name].network(stage)
    assert [stride[0] for stride in config.strides] == [1, 1, 1]
    assert config.divisor == (1, *(8 * n for n in config.stem[1:]))
    for module in on_meta(config).modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            assert module.stride[0] == 1


@pytest.mark.parametrize("depth", [1, 5, 48])
@pytest.mark.parametrize(
    ("name", "stage", "extra"),
    [(*case, {}) for case in FINE] + [("tiny", "lesion", extra) for extra in WIDE],
    ids=str,
)
def test_every_tensor_keeps_all_slices(name, stage, extra, depth):
    network = on_meta(PRESETS[name].network(stage).model_copy(update=extra))
    seen = []
    for module in network.modules():
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    network(torch.empty(1, 1, depth, *PRESETS[name].fine.in_plane, device="meta"))
    assert len(seen) > 40
    assert {shape[2] for shape in seen} == {depth}
    if not extra:
        in_plane, stem = PRESETS[name].fine.in_plane[0], PRESETS[name].network(stage).stem[1]
        assert {shape[3] for shape in seen} == {in_plane} | {in_plane // stem // n for n in (1, 2, 4, 8)}


@pytest.mark.parametrize(("name", "stage"), FINE)
def test_kernels_are_flat_in_the_two_high_resolution_levels_only(name, stage):
    network = on_meta(PRESETS[name].network(stage))
    levels = [network.encoder[0], network.encoder[1], network.encoder[2], network.encoder[3]]
    levels += [network.decoder[0], network.decoder[1], network.decoder[2]]
    flat = [True, True, False, False, False, True, True]
    for level, is_flat in zip(levels, flat, strict=True):
        kernels = {m.kernel_size for m in level.modules() if isinstance(m, nn.Conv3d)} - {(1, 1, 1)}
        assert kernels == {(1, 3, 3) if is_flat else (3, 3, 3)}
    assert {up.kernel_size for up in network.up} == {(1, 2, 2)}


def test_flat_levels_mix_no_slices_and_deeper_ones_do(small_config):
    config = small_config.network("kidney")
    flat = without_norm(build(config.model_copy(update={"kernels": ((1, 3, 3),) * 2})))
    deeper = without_norm(build(config))
    image = noise(1, 1, 7, 8, 8)
    assert touched(flat, image, 3) == [3]
    assert touched(deeper.encoder[0], image, 3) == [3]
    assert touched(deeper, image, 3) == [1, 2, 3, 4, 5]


def test_the_coarse_network_sees_far(small_config):
    assert len(touched(without_norm(build(small_config.network("coarse"))), noise(1, 1, 16, 8, 8), 8)) > 5


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("extra", WIDE, ids=str)
def test_options_of_resunet_a_run_and_cost_parameters(small_config, stage, extra):
    config = small_config.network(stage)
    network = build(config.model_copy(update=extra))
    assert parameters(network) > parameters(build(config))
    logits = network(noise(1, 1, 8, 16, 32))
    assert logits.shape == (1, len(config.classes), 8, 16, 32)
    assert logits.isfinite().all()


def test_atrous_branches_are_dilated_where_their_kernel_is_not_flat(small_config):
    network = on_meta(small_config.network("kidney").model_copy(update={"dilations": (1, 3)}))
    assert [b[0].dilation for b in network.encoder[0][0].branches] == [(1, 1, 1), (1, 3, 3)]
    assert [b[0].dilation for b in network.encoder[1][0].branches] == [(1, 1, 1), (3, 3, 3)]


def test_psp_pools_only_the_axes_that_are_down_sampled(small_config):
    option = {"psp_bins": (1, 2)}
    assert on_meta(small_config.network("kidney").model_copy(update=option)).bottleneck.keep == (True, False, False)
    assert on_meta(small_config.network("coarse").model_copy(update=option)).bottleneck.keep == (False,) * 3
    image = noise(1, 4, 6, 8, 8)
    image[0, :, 2] += 10
    assert touched(PspPooling(4, (1, 2), (True, False, False)), image, 2) == [2]
    assert len(touched(PspPooling(4, (1, 2), (False, False, False)), image, 2)) == 6


def test_psp_with_more_bins_than_voxels():
    assert PspPooling(4, (1, 16), (True, False, False))(noise(1, 4, 1, 2, 3)).shape == (1, 4, 1, 2, 3)


@pytest.mark.parametrize("stage", STAGES)
def test_he_normal_weights(stage):
    network = build(PRESETS["tiny"].network(stage), seed=3)
    checked = 0
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            fan_in = module.in_channels
            if isinstance(module, nn.Conv3d):
                fan_in *= math.prod(module.kernel_size)
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=5 / math.sqrt(2 * n))
            assert abs(module.weight.mean().item()) < 5 * math.sqrt(2 / fan_in / n)
            assert module.bias is None or not module.bias.any()
            checked += 1
    assert checked > 10


def test_the_seed_decides_the_weights(small_config):
    def first(seed):
        torch.rand(1)  # the global generator does not matter
        return torch.cat([p.flatten() for p in build(small_config.network("lesion"), seed).parameters()])

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("extra", [{}, *WIDE], ids=str)
def test_every_parameter_learns(small_config, extra):
    network = build(small_config.network("lesion").model_copy(update=extra)).train()
    logits = network(noise(2, 1, 4, 8, 16))
    target = torch.randint(0, 3, (2, 4, 8, 16), generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(logits, target).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("stage", STAGES)
def test_samples_of_a_batch_do_not_see_each_other(small_config, stage):
    network = build(small_config.network(stage)).eval()
    images = noise(2, 1, 8, 16, 32) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1, 1)
    with torch.no_grad():
        both = network(images)
        single = torch.cat([network(images[:1]), network(images[1:])])
    torch.testing.assert_close(both, single, atol=1e-4, rtol=1e-4)


def test_the_shortcut_is_the_identity_where_nothing_changes():
    assert isinstance(ResidualBlock(4, 4, (1, 3, 3), (1, 1, 1), (1,)).shortcut, nn.Identity)
    block = ResidualBlock(4, 4, (1, 3, 3), (1, 2, 2), (1,))
    assert block(noise(1, 4, 3, 6, 8)).shape == (1, 4, 3, 3, 4)


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2), (1, 3, 2)])
def test_depth_to_space_undoes_space_to_depth(factor):
    image = noise(2, 3, 4, 6, 12)
    deep = SpaceToDepth(factor)(image)
    assert deep.shape == (2, 3 * math.prod(factor), *(n // f for n, f in zip((4, 6, 12), factor, strict=True)))
    assert torch.equal(DepthToSpace(factor)(deep), image)
    block = image[1, 2, : factor[0], : factor[1], : factor[2]].flatten()
    assert torch.equal(deep[1, 2 * math.prod(factor) : 3 * math.prod(factor), 0, 0, 0], block)


def test_a_stem_keeps_the_grid_and_saves_convolutions(small_config):
    config = small_config.network("kidney")
    stemmed = ResUnet(config.model_copy(update={"stem": (1, 2, 2)}))
    image = noise(1, 1, 3, 16, 32)
    assert stemmed(image).shape == ResUnet(config)(image).shape
    work = []
    for network in (ResUnet(config), stemmed):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image)
        work.append(counter.get_total_flops())
    assert work[1] < 0.4 * work[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("samples", [1, 2])
def test_norm_is_instance_normalisation_in_training_and_use(layout, samples):
    norm = InstanceNorm(5)
    with torch.no_grad():
        norm.weight.copy_(noise(5, seed=2))
        norm.bias.copy_(noise(5, seed=3))
    found = []
    for training in (True, False):
        image = (3 * noise(samples, 5, 4, 6, 7) + 2).contiguous(memory_format=layout).requires_grad_()
        out = norm.train(training)(image)
        out.square().sum().backward()
        found.append((out.detach(), image.grad))
    twin = (3 * noise(samples, 5, 4, 6, 7) + 2).double().requires_grad_()
    expected = nn.functional.instance_norm(twin, weight=norm.weight.double(), bias=norm.bias.double())
    expected.square().sum().backward()
    for out, gradient in found:
        torch.testing.assert_close(out.double(), expected.detach(), atol=2e-5, rtol=0)
        torch.testing.assert_close(gradient.double(), twin.grad, atol=2e-4, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), (1, 1, 1)), ((1, 3, 3), (1, 2, 2))])
def test_small_convolutions_take_the_fast_kernels_to_the_same_result(layout, kernel, stride):
    conv = Conv3d(6, 4, kernel, stride, tuple(k // 2 for k in kernel), bias=False)
    image = noise(1, 6, 5, 8, 9).contiguous(memory_format=layout).requires_grad_()
    with torch.profiler.profile() as profile:
        out = conv(image)
    out.square().sum().backward()
    assert out.is_contiguous(memory_format=layout)
    names = {event.name for event in profile.events()}
    if torch.backends.mkldnn.is_available():
        assert "aten::slow_conv3d_forward" not in names
    twin, weight = image.detach().double().requires_grad_(), conv.weight.detach().double().requires_grad_()
    expected = nn.functional.conv3d(twin, weight, None, stride, conv.padding)
    expected.square().sum().backward()
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(image.grad.double(), twin.grad, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(conv.weight.grad.double(), weight.grad, atol=1e-3, rtol=1e-5)
