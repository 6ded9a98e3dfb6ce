"""Each of these fails where its part of a step is left out."""

import functools

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from renalseg.config import STAGES
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime
from renalseg.train.loop import cosine, train
from renalseg.train.loss import dice_ce
from renalseg.train.prepare import IGNORE

CPU = torch.device("cpu")


@pytest.fixture
def steps():
    """What the optimiser sees at each step: the norm of the gradient, the learning rate, and its settings."""
    seen = []

    def note(optimiser, *_):
        (group,) = optimiser.param_groups
        norm = torch.cat([p.grad.reshape(-1) for p in group["params"]]).norm()
        seen.append((float(norm), group["lr"], len(group["params"]), type(optimiser), group["weight_decay"]))

    hook = register_optimizer_step_pre_hook(note)
    yield seen
    hook.remove()


@pytest.fixture
def low_scale(monkeypatch):
    """A scale of the loss that fp16 stands from the first step on; torch's own overflows a few times first."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: scaler(*a, init_scale=256.0, **k))


def norms(steps):
    return [norm for norm, *_ in steps]


@pytest.mark.usefixtures("low_scale")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gradients_are_clipped(precision, steps, dataset, make_config, make_run, tmp_path):
    """After the scale of the loss is taken out again, with fp16."""
    config = make_config(epochs=2, batch=1, clip_norm=1e9)
    train(make_run("kidney", dataset, tmp_path / "free", config, runtime=Runtime(CPU, precision)))
    free = norms(steps)
    assert all(0.05 < norm < 100 for norm in free)
    steps.clear()
    limit = free[0] / 8
    config = make_config(epochs=2, batch=1, clip_norm=limit)
    train(make_run("kidney", dataset, tmp_path / "clipped", config, runtime=Runtime(CPU, precision)))
    assert norms(steps) == pytest.approx([limit, limit], rel=1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_weight_decay_is_that_of_the_settings_for_all_weights(stage, steps, dataset, make_config, make_run, tmp_path):
    config = make_config(epochs=1, weight_decay=0.125)
    train(make_run(stage, dataset, tmp_path, config))
    every = len(list(build(config.network(stage)).parameters()))
    assert [step[2:] for step in steps] == [(every, torch.optim.AdamW, 0.125)]


def test_the_optimiser_has_the_cosines_rate_at_each_step(steps, dataset, make_config, make_run, tmp_path):
    config = make_config(epochs=3, batch=1, learning_rate=1e-3)
    train(make_run("coarse", dataset, tmp_path, config, cases=2))
    assert [rate for _, rate, *_ in steps] == [cosine(1e-3, step, 6) for step in range(6)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_mixed_sample_is_compared_with_both_its_targets(stage, dataset, make_config, make_run, tmp_path):
    """Cross-entropy is linear in the target: that of a mixture is the mixture of the two."""
    config = make_config(epochs=1, batch=1, mixup_probability=1.0, mixup_alpha=5.0, dice_weight=0.0, hard_voxels=1.0)
    config = with_class_weights_of_1(config)
    samples, losses = [], []
    hooks = {"on_samples": lambda drawn, _: samples.extend(drawn), "on_step": lambda *step: losses.append(step[2])}
    train(make_run(stage, dataset, tmp_path, config, cases=3, **hooks))
    sample, settings = samples[0], config.training[stage]
    network = build(config.network(stage), settings.seed)
    assert 0.5 <= sample.weight < 0.95
    with torch.no_grad():
        logits = network(sample.image[None])
    known = [(target != IGNORE).float() for target in (sample.target, sample.other)]
    own, other = (float(dice_ce(logits, target[None], settings)[0]) for target in (sample.target, sample.other))
    shares = [sample.weight * float(known[0].sum()), (1 - sample.weight) * float(known[1].sum())]
    assert losses[0] == pytest.approx((own * shares[0] + other * shares[1]) / sum(shares), rel=2e-5)
    assert losses[0] != pytest.approx(own, rel=2e-4)


def with_class_weights_of_1(config):
    training = {
        stage: settings.model_copy(update={"class_weights": (1.0,) * len(settings.class_weights)})
        for stage, settings in config.training.items()
    }
    return config.model_copy(update={"training": training})


def test_mining_remembers_the_losses_of_the_steps(dataset, make_config, make_run, tmp_path):
    order, losses = [], []
    hooks = {"on_samples": lambda samples, _: order.extend(s.case for s in samples)}
    hooks["on_step"] = lambda *step: losses.append(step[2])
    config = make_config(epochs=1, batch=1, hard_cases=0.0, mixup_probability=0.0)
    progress = train(make_run("lesion", dataset, tmp_path, config, cases=3, **hooks))
    assert len(set(losses)) == 3
    assert progress["case_losses"] == [losses[order.index(case)] for case in range(3)]


def last(folder):
    return {k: v for k, v in load_file(folder / "kidney" / "last.safetensors").items() if k.startswith("network.")}


@pytest.mark.parametrize("wanted", [True, False])
def test_a_compiled_network_is_asked_for_and_used(wanted, dataset, make_config, make_run, tmp_path, monkeypatch):
    calls = []

    def spy(network, **options):
        assert options == {"dynamic": True}  # regions differ in depth

        def forward(image):
            calls.append(image.shape)
            return network(image)

        return forward

    monkeypatch.setattr(torch, "compile", spy)
    train(make_run("kidney", dataset, tmp_path, make_config(epochs=2, batch=3, compile=wanted), cases=3))
    assert len(calls) == (6 if wanted else 0)


def test_a_compiled_network_learns_the_same(dataset, make_config, make_run, tmp_path, monkeypatch):
    """Through the whole of torch.compile but its code generator, which needs a C++ compiler."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    histories = []
    for name in ("eager", "compiled"):
        config = make_config(epochs=2, batch=1, compile=name == "compiled")
        histories.append(train(make_run("kidney", dataset, tmp_path / name, config))["history"])
    eager, compiled = ([record["loss"] for record in history] for history in histories)
    assert compiled == pytest.approx(eager, rel=1e-3)
    expected, found = last(tmp_path / "eager"), last(tmp_path / "compiled")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=2e-4, rtol=0)


@pytest.mark.usefixtures("low_scale")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_used_and_learns_as_fp32_does(precision, dataset, make_config, make_run, tmp_path):
    losses = []
    for name in ("fp32", precision):
        config = make_config(epochs=4, batch=1, ema=0.5, learning_rate=1e-2)
        run = make_run("kidney", dataset, tmp_path / name, config, runtime=Runtime(CPU, name))
        losses.append([record["loss"] for record in train(run)["history"]])
    expected, found = (last(tmp_path / name) for name in ("fp32", precision))
    assert all(value.dtype == torch.float32 for value in found.values())  # weights stay whole
    assert any(not torch.equal(value, expected[key]) for key, value in found.items())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
    assert losses[1][-1] < 0.6 * losses[1][0]
