"""``renalseg train`` leaves a page and scalars beside the weights."""

import json
import sys

import pytest

from renalseg.cli import main


def train(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["renalseg", "train", "kidney", *map(str, arguments), "--device", "cpu"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_a_page_and_scalars(write_dataset, make_config, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    data, config, out = write_dataset(tmp_path / "data", 5), tmp_path / "c.yaml", tmp_path / "out"
    config.write_text(make_config(epochs=2, validate_every=1).to_yaml())
    train(monkeypatch, "--data", data, "--out", out, "--config", config, "--fold", 0, "--precision", "fp32")
    page = (out / "kidney" / "report.html").read_text()
    records = [json.loads(line) for line in (out / "kidney" / "metrics.jsonl").read_text().splitlines()]
    assert "http-equiv" not in page
    assert "2 of 2" in page
    assert f"{max(r['score'] for r in records):.4f}" in page
    assert page.count("data:image/png;base64,") == 1  # the fold's only case
    events = accumulator.EventAccumulator(str(out / "kidney" / "tensorboard"))
    events.Reload()
    scores = [(e.step, e.value) for e in events.Scalars("validation/score")]
    assert scores == [(r["epoch"], pytest.approx(r["score"])) for r in records]
