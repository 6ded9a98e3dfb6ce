"""``config``: the presets, the paper's numbers, YAML, hashes, and what is refused."""

import copy
import hashlib
import json
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from renalseg import config as module
from renalseg.config import PAPER, PRESETS, STAGES, TINY, Config, load_config, preset, sha256_today
from renalseg.core.errors import ConfigError

SOURCES = ("paper", "settled", "measured", "ResUNet-a")
MODELS = [m for m in vars(module).values() if isinstance(m, type) and issubclass(m, BaseModel) and m.model_fields]


def leaves(data, path=()):
    """Paths of all numbers, texts and flags of nested dicts and lists."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(value, (*path, key))
    else:
        yield path


def changed(data, path):
    data = copy.deepcopy(data)
    part = data
    for key in path[:-1]:
        part = part[key]
    old = part[path[-1]]
    if isinstance(old, bool):
        part[path[-1]] = not old
    elif isinstance(old, str):
        part[path[-1]] = old + "x"
    else:
        part[path[-1]] = old / 2 if isinstance(old, float) and old else old + 2
    return data


def nested(annotation):
    return (isinstance(annotation, type) and issubclass(annotation, BaseModel)) or any(
        nested(a) for a in typing.get_args(annotation)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_validate_and_carry_their_name(name):
    assert preset(name) is PRESETS[name]
    assert PRESETS[name].name == name
    assert Config.model_validate(PRESETS[name].model_dump()) == PRESETS[name]


def test_the_papers_numbers():
    assert PAPER.intensity.clip_hu == (-200, 400)
    assert PAPER.coarse.shape == PAPER.training["coarse"].patch == (128, 128, 128)
    assert PAPER.fine.in_plane == (224, 384)
    assert PAPER.fine.window == 48
    assert PAPER.fine.mirror_z
    assert PAPER.coarse.margin_mm == (20, 20, 20)
    assert (PAPER.clean.min_voxels, PAPER.clean.min_mm3) == (10000, 0)
    assert [PAPER.training[s].epochs for s in STAGES] == [300, 600, 600]
    for stage in STAGES:
        training = PAPER.training[stage]
        assert training.batch == 4
        assert training.learning_rate == training.weight_decay == 1e-4
        changes = training.augmentation
        assert changes.scale == (0.6, 1.3)
        assert changes.brightness == changes.contrast == changes.gamma == (0.6, 1.5)
        assert (changes.elastic_probability, changes.elastic_sigma) == (0.5, (3, 5))
        assert changes.elastic_magnitude == (100, 200)
        assert training.patch == ((128, 128, 128) if stage == "coarse" else (48, 224, 384))
    assert PAPER.coarse.network.classes == PAPER.fine.kidney.classes == ("background", "kidney")
    assert PAPER.fine.lesion.classes == ("other kidney", "tumor", "cyst")
    for network in (PAPER.fine.kidney, PAPER.fine.lesion):
        assert network.strides == ((1, 2, 2),) * 3
        assert network.kernels == ((1, 3, 3),) * 2 + ((3, 3, 3),) * 2
        assert (network.dilations, network.psp_bins) == ((1,), ())


def test_the_papers_tricks_are_on():
    """Mixup, both minings, lesion-wise intensity: off, a preset would still be the paper's in all of its numbers."""
    for stage in STAGES:
        training = PAPER.training[stage]
        assert training.mixup_probability == 0.5
        assert (training.hard_voxels, training.hard_cases) == (0.25, 0.2)
        assert 0 < training.augmentation.lesion_intensity_probability <= 1
        assert 0 < training.augmentation.intensity_probability <= 1
        assert 0 < training.augmentation.scale_probability <= 1


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_number_names_its_source(model):
    for name, field in model.model_fields.items():
        if (model, name) == (Config, "name") or nested(field.annotation):
            continue
        assert field.description, f"{model.__name__}.{name}"
        assert any(source in field.description for source in SOURCES), f"{model.__name__}.{name}"


def test_presets_are_frozen():
    for model, field in ((PAPER, "name"), (PAPER.fine, "window"), (PAPER.training["kidney"], "epochs")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, field, getattr(model, field))


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_round_trip(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(PRESETS[name].to_yaml())
    read = load_config(path)
    assert read == PRESETS[name]
    assert read.sha256() == PRESETS[name].sha256()


@settings(max_examples=15)
@given(
    name=st.text(),
    low=st.floats(-2000, -1),
    rate=st.floats(1e-300, 1e300),
    overlap=st.floats(0, 1, exclude_max=True),
)
def test_yaml_keeps_any_value(name, low, rate, overlap):
    data = TINY.model_dump(mode="json")
    data["name"], data["intensity"]["clip_hu"][0], data["fine"]["overlap"] = name, low, overlap
    data["training"]["lesion"]["learning_rate"] = rate
    config = Config.model_validate(data)
    again = Config.model_validate(yaml.safe_load(config.to_yaml()))
    assert again == config
    assert again.sha256() == config.sha256()


def test_every_field_enters_the_hash():
    data = TINY.model_dump(mode="json")
    seen, accepted = {TINY.sha256()}, 0
    for path in leaves(data):
        try:
            config = Config.model_validate(changed(data, path))
        except ValidationError:
            continue
        accepted += 1
        assert config.sha256() not in seen, path
        seen.add(config.sha256())
        decides = path[0] not in ("training", "preparation", "name")
        assert (config.inference_sha256() != TINY.inference_sha256()) == decides, path
    assert accepted > 100


def test_the_hash_does_not_depend_on_how_a_number_is_written():
    data = TINY.model_dump(mode="json")
    data["clean"]["min_mm3"] = 20000
    assert Config.model_validate(data).sha256() == TINY.sha256()


def test_a_hash_of_a_version_with_fewer_settings_is_known_by_its_file(tmp_path):
    data, path = TINY.model_dump(mode="json"), tmp_path / "config.yaml"
    del data["coarse"]["network"]["psp_bins"], data["training"]["lesion"]["ema"]
    noted = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    assert sha256_today(noted, path) == noted  # no file
    path.write_text(yaml.safe_dump(data))
    assert noted != TINY.sha256()
    assert sha256_today(noted, path) == TINY.sha256()
    assert sha256_today("other", path) == "other"
    for text in (TINY.to_yaml(), "[", "day: 2001-01-01", ""):
        path.write_text(text)
        assert sha256_today(noted, path) == noted
    unknown = data | {"gone": 1}
    path.write_text(yaml.safe_dump(unknown))
    noted = hashlib.sha256(json.dumps(unknown, sort_keys=True).encode()).hexdigest()
    assert sha256_today(noted, path) == noted  # a setting that this version does not know


def broken(**changes):
    data = TINY.model_dump(mode="json")
    for path, value in changes.items():
        *parts, last = path.split("__")
        part = data
        for key in parts:
            part = part[key]
        part[last] = value
    return yaml.safe_dump(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML"),
        ("", "the file"),
        ("just words", "the file"),
        (broken(extra=1), "extra: "),
        (broken(training__lesion__class_weights=[1.0, 1.0]), "lesion: 3 classes need as many class_weights"),
        (broken(fine__kidney__strides=[[2, 2, 2], [1, 2, 2], [1, 2, 2]]), "kidney: a 2.5D network does not down-samp"),
        (broken(coarse__network__kernels=[[3, 3, 2]] * 4), "coarse.network: Value error, kernel sizes must be odd"),
        (broken(fine__lesion__widths=[8, 8]), "fine.lesion: Value error, widths and kernels need one entry a level"),
        (broken(fine__lesion__widths=[8, 8, 0, 8]), "fine.lesion.widths.2: "),
        (broken(fine__lesion__dilations=[]), "fine.lesion: Value error, dilations need"),
        (broken(fine__lesion__psp_bins=[0]), "fine.lesion.psp_bins.0: "),
        (broken(coarse__shape=[48, 48, 50]), "coarse: the patch"),
        (
            broken(training__coarse__patch=[52, 48, 48]),
            "coarse: the patch (52, 48, 48) is not the stage's (48, 48, 48)",
        ),
        (
            broken(coarse__shape=[50, 48, 48], training__coarse__patch=[50, 48, 48]),
            "coarse: the patch (50, 48, 48) is not divisible by (16, 16, 16)",
        ),
        (
            broken(training__kidney__patch=[48, 224, 384]),
            "kidney: the patch (48, 224, 384) is not the stage's (48, 64",
        ),
        (broken(training={}), "no entry for the stage coarse"),
        (broken(intensity__clip_hu=[400, -200]), "intensity: Value error, clip_hu"),
        (broken(fine__overlap=1.0), "fine.overlap: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text, says, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(tmp_path / "binary.yaml")


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match=r"^there is no preset 'big'; choose one of paper, light, fast, tiny$"):
        preset("big")


def test_divisor_is_the_product_of_the_strides():
    assert PAPER.coarse.network.divisor == (16, 16, 16)
    assert PAPER.fine.kidney.divisor == (1, 8, 8)
