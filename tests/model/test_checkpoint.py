"""``checkpoint``: the round trip, and every way in which a weights folder can be wrong."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import renalseg
from renalseg.config import STAGES
from renalseg.core.errors import ConfigError, RenalsegError, WeightsError
from renalseg.model import checkpoint
from renalseg.model.checkpoint import FORMAT, file_sha256, open_weights, save_stage
from renalseg.model.resunet import build


@pytest.fixture
def folder(small_weights, tmp_path) -> Path:
    """A copy of the small weights that may be damaged."""
    return Path(shutil.copytree(small_weights, tmp_path / "weights"))


def edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("stage", STAGES)
def test_round_trip(small_config, stage, tmp_path):
    network = build(small_config.network(stage), seed=5).eval()
    save_stage(tmp_path, small_config, stage, network, {"cases": 3, "fold": 0})
    weights = open_weights(tmp_path)
    assert weights.config == small_config
    assert weights.manifest["stages"][stage]["trained_on"] == {"cases": 3, "fold": 0}
    assert weights.manifest["format"] == FORMAT
    again = weights.network(stage)
    assert not again.training
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


def test_stages_come_one_by_one_and_are_replaced(small_config, tmp_path):
    hashes = set()
    for seed, stages in ((0, STAGES), (1, ("lesion",))):
        for stage in stages:
            save_stage(tmp_path, small_config, stage, build(small_config.network(stage), seed), {})
            hashes.add(open_weights(tmp_path).sha256)
    assert len(hashes) == 4
    weights = open_weights(str(tmp_path))
    assert tuple(weights.files) == STAGES
    assert weights.card is None
    (tmp_path / "MODEL_CARD.md").write_text("Small.")
    assert weights.card == "Small."


def test_stages_saved_at_once_do_not_lose_each_other(small_config, tmp_path, monkeypatch):
    """Another process saves the kidney stage while this one writes the tensors of the coarse stage."""

    def meanwhile(*arguments, **more):
        monkeypatch.setattr(checkpoint, "save_file", save_file)
        save_stage(tmp_path, small_config, "kidney", build(small_config.network("kidney")), {})
        save_file(*arguments, **more)

    save_stage(tmp_path, small_config, "lesion", build(small_config.network("lesion")), {})
    monkeypatch.setattr(checkpoint, "save_file", meanwhile)
    save_stage(tmp_path, small_config, "coarse", build(small_config.network("coarse")), {})
    weights = open_weights(tmp_path)
    assert tuple(weights.files) == STAGES
    assert all(weights.is_whole(stage) for stage in STAGES)


def test_one_process_at_a_time_updates_a_manifest(small_config, tmp_path):
    """Many at once, none of which may lose an entry or leave its lock."""

    def save(index):
        stage = STAGES[index % 3]
        save_stage(tmp_path, small_config, stage, build(small_config.network(stage), index), {"index": index})
        return set(open_weights(tmp_path).files)

    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(save, range(30)))
    assert all(STAGES[i % 3] in files for i, files in enumerate(seen))
    assert seen[-1] == set(STAGES)
    assert not list(tmp_path.glob(".*"))


def test_a_lock_is_waited_for(small_config, tmp_path):
    network = build(small_config.network("coarse"))
    with checkpoint._locked(tmp_path):
        other = threading.Thread(target=save_stage, args=(tmp_path, small_config, "coarse", network, {}))
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert not (tmp_path / "manifest.json").exists()
    other.join(30)
    assert open_weights(tmp_path).is_whole("coarse")


def test_a_configuration_that_says_the_same_is_kept(folder, small_config):
    """A version that knows more settings must not rewrite the file whose hash an earlier one noted."""
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("    stem:\n    - 1\n    - 1\n    - 1\n", ""))
    text = path.read_text()
    assert text.count("stem") < small_config.to_yaml().count("stem")
    edit(folder, config_sha256=file_sha256(path))
    save_stage(folder, small_config, "coarse", build(small_config.network("coarse")), {})
    assert path.read_text() == text
    assert open_weights(folder).config == small_config


def test_the_files_need_nothing_but_safetensors_and_json(small_weights):
    assert {p.name for p in small_weights.iterdir()} == {
        *("manifest.json", "config.yaml"),
        *(f"{stage}.safetensors" for stage in STAGES),
    }
    assert all(t.dtype == torch.float32 for t in load_file(small_weights / "coarse.safetensors").values())


def test_packaged_weights_go_by_name(small_weights, monkeypatch):
    monkeypatch.setattr(checkpoint, "PACKAGED", small_weights.parent)
    assert checkpoint.packaged_names() == ["small"]
    assert open_weights("small").path == small_weights
    with pytest.raises(WeightsError, match=r"or a packaged name \(small\)"):
        open_weights("large")


def test_a_tampered_file(folder):
    path = folder / "kidney.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    weights = open_weights(folder)
    weights.network("coarse")
    with pytest.raises(WeightsError, match=r"kidney.safetensors: the hash is not the one in manifest.json"):
        weights.network("kidney")


@pytest.mark.parametrize("damage", ["shapes", "names", "bytes"])
def test_weights_that_do_not_fit_the_configuration(folder, damage):
    path = folder / "lesion.safetensors"
    tensors = load_file(path)
    if damage == "shapes":
        tensors["head.bias"] = torch.zeros(7)
    elif damage == "names":
        tensors["other"] = tensors.pop("head.bias")
    save_file(tensors, path)
    if damage == "bytes":
        path.write_bytes(b"no tensors")
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    stages["lesion"]["sha256"] = file_sha256(path)
    edit(folder, stages=stages)
    with pytest.raises(WeightsError, match=r"lesion.safetensors: the weights do not fit config.yaml"):
        open_weights(folder).network("lesion")


def test_no_folder_and_no_manifest(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"no weights there; give a folder with manifest\.json"):
        open_weights(tmp_path / "none")
    (folder / "manifest.json").unlink()
    with pytest.raises(WeightsError, match="no weights there"):
        open_weights(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 1, "config_sha256": "0", "stages": {"coarse": {"file": "coarse.safetensors"}}}',
        '{"format": 1, "config_sha256": "0", "stages": {"coarse": null}}',
        '{"format": 1, "config_sha256": "0", "stages": {"coarse": {"file": 1, "sha256": "0"}}}',
        '{"format": 1, "config_sha256": "0", "stages": 3}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_manifest(folder, text):
    (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WeightsError, match="the manifest is damaged"):
        open_weights(folder)


def test_a_damaged_manifest_is_not_overwritten(folder, small_config):
    for text in ("{", "[]", "{}"):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(WeightsError, match="the manifest is damaged"):
            save_stage(folder, small_config, "coarse", build(small_config.network("coarse")), {})
        assert (folder / "manifest.json").read_text() == text


def test_another_format(folder):
    edit(folder, format=FORMAT + 1)
    with pytest.raises(WeightsError, match=r"weights of format 2, this version reads 1; update one"):
        open_weights(folder)


def test_a_missing_stage(folder):
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    del stages["lesion"]
    edit(folder, stages=stages)
    with pytest.raises(WeightsError, match="there are no weights of the stage lesion"):
        open_weights(folder).network("lesion")


def test_a_missing_file(folder):
    (folder / "lesion.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lesion.safetensors: this file of the manifest is missing"):
        open_weights(folder)


def test_a_manifest_cannot_point_outside_its_folder(folder, tmp_path):
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    shutil.move(folder / "coarse.safetensors", tmp_path / "coarse.safetensors")
    stages["coarse"]["file"] = "../coarse.safetensors"
    edit(folder, stages=stages)
    with pytest.raises(WeightsError, match="is missing"):
        open_weights(folder)


def test_a_changed_and_a_missing_configuration(folder):
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("window: 8", "window: 9"))
    with pytest.raises(WeightsError, match=r"config.yaml is not the one these weights were saved with"):
        open_weights(folder)
    path.unlink()
    with pytest.raises(ConfigError, match=r"config.yaml: the configuration cannot be read"):
        open_weights(folder)


def test_another_configuration_is_not_saved_into_the_same_folder(folder, small_config):
    other = small_config.model_copy(update={"name": "other"})
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(WeightsError, match="holds weights of another configuration; give another --out"):
        save_stage(folder, other, "coarse", build(other.network("coarse")), {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_messages_are_one_sentence(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RenalsegError) as caught:
        open_weights(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_no_pickle_is_ever_read():
    source = Path(renalseg.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text()
        for call in ("torch.load(", "import pickle", "from pickle", "allow_pickle=True", "joblib", "import dill"):
            assert call not in text, path.name
