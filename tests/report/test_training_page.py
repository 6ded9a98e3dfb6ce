import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from renalseg.config import preset
from renalseg.core.volume import Volume
from renalseg.report.curves import chart
from renalseg.report.example import description, example_png
from renalseg.report.training_page import About, TrainingPage, to_html

EPOCHS = preset("tiny").training["lesion"].epochs
ABOUT = About("lesion", preset("tiny"), fold=2)
REFRESH = '<meta http-equiv="refresh" content="30">'


def history(epochs, every=5):
    records = []
    for epoch in range(1, epochs + 1):
        record = {"epoch": epoch, "loss": 2 / epoch, "lr": 1e-3, "seconds": 120.0, "wait_seconds": 30.0}
        if epoch % every == 0:
            names = [f"{kind}_{hec}" for kind in ("dice", "sd") for hec in ("kidney", "masses", "tumor")]
            record |= dict.fromkeys(names, epoch / 100) | {"box_coverage": 1.0, "case_seconds": 3.0}
            record["score"] = 1.0 - abs(epoch - 10) / 100
        records.append(record)
    return records


class Page(HTMLParser):
    """Checks that tags close in order, and collects what a browser would load and show."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe")
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def case(shift=0, label=2, name="case_00007"):
    z, y, x = np.ogrid[:6, :40, :50]
    labels = np.zeros((6, 40, 50), np.uint8)
    labels[np.broadcast_to((z - 3) ** 2 + (y - 20) ** 2 / 9 + (x - 25 - shift) ** 2 / 9 < 9, labels.shape)] = 1
    labels[3, 18:22, 24 + shift : 28 + shift] = label
    ct = np.where(labels > 0, 150, -50).astype(np.int16)
    spacing = (5.0, 2.0, 2.0)
    return Volume.from_array(ct, spacing, name=name), Volume.from_array(labels, spacing, name=name)


def test_a_page_stands_alone_and_says_where_the_run_is():
    page = Page(to_html(ABOUT, history(12), [], 150.0))
    text = " ".join(page.text)
    assert page.loads == []
    for part in ("Training of the lesion stage", "fold 2 held out", f"12 of {EPOCHS}", "1.0000 epoch 10", "24 min"):
        assert part in text
    assert "2 h 0 min" in text  # 48 epochs of 150 s
    assert preset("tiny").sha256() in text
    assert "12345" in text  # the seed
    assert "25 %" in text  # 30 of 120 s


def test_it_reloads_while_the_run_goes_on():
    assert REFRESH in to_html(ABOUT, history(EPOCHS - 1), [], 1.0)
    done = to_html(ABOUT, history(EPOCHS), [], 1.0)
    assert "http-equiv" not in done
    assert "Remaining" not in done


def test_curves_of_what_there_is():
    early = to_html(ABOUT, history(1), [], 1.0)
    assert early.count("<svg") == 3
    assert "not validated yet" in early
    assert to_html(ABOUT, history(12), [], 1.0).count("<svg") == 6


def test_no_pixel_of_a_chart_lies_outside():
    svg = chart("x", {"a": [(1, 0.0), (2, 1e-5)], "b": [(2, -3.0)]})
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', svg)[1].split()]
    points += [(float(x), float(y)) for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', svg)]
    assert all(58 <= x <= 548 and 10 <= y <= 210 for x, y in points)
    assert len(points) == 2 + 3


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 1e-9, 12345.0])
def test_a_chart_of_one_value(value):
    assert f"{value:.4g}" in chart("x", {"a": [(1, value), (2, value)]})


def test_a_share_has_no_axis_above_one():
    assert ">1.1<" not in chart("x", {"a": [(1, 1.0)]}, limits=(0.0, 1.0))


def test_what_comes_from_outside_is_escaped():
    about = About("lesion", preset("tiny").model_copy(update={"name": "<script>alert(1)</script>"}))
    page = Page(to_html(about, history(2), [], 1.0))
    assert any("<script>" in t for t in page.text)


def test_an_example_says_what_it_shows():
    (ct, truth), (_, predicted) = case(), case(shift=2)
    text = description(example_png(ct, predicted, truth))
    assert text.startswith("case_00007: slice 4 of 6; Dice kidney 0.")
    assert "masses" in text
    assert "tumor 0." in text


@pytest.mark.parametrize("empty", ["truth", "prediction", "both"])
def test_an_example_without_labels(empty):
    ct, labels = case()
    nothing = labels.with_array(np.zeros_like(labels.array))
    truth = nothing if empty in ("truth", "both") else labels
    predicted = nothing if empty in ("prediction", "both") else labels
    assert "Dice kidney " + ("1.000" if empty == "both" else "0.000") in description(example_png(ct, predicted, truth))


def test_the_page_of_a_run_shows_the_cases_of_the_last_validation(tmp_path):
    page = TrainingPage(tmp_path, ABOUT)
    ct, truth = case(name="case_00001")
    page.add_example(ct, truth, truth)
    page.add_example(*(v for v in (case()[0], truth, truth)))
    page.update(history(5))
    first = (tmp_path / "lesion" / "report.html").read_text()
    assert first.count("data:image/png;base64,") == 2
    assert "after epoch 5" in first
    page.update(history(6))
    assert (tmp_path / "lesion" / "report.html").read_text().count("data:image/png;base64,") == 2
    page.add_example(ct, truth, truth)
    page.update(history(10))
    assert (tmp_path / "lesion" / "report.html").read_text().count("data:image/png;base64,") == 1
    assert sorted(p.name for p in (tmp_path / "lesion").rglob("*.*")) == ["case_00001.png", "report.html"]


def test_a_resumed_run_keeps_the_pictures(tmp_path):
    ct, truth = case()
    before = TrainingPage(tmp_path, ABOUT)
    before.add_example(ct, truth, truth)
    before.update(history(5))
    TrainingPage(tmp_path, ABOUT).update(history(6))
    assert "case_00007: slice 4 of 6" in (tmp_path / "lesion" / "report.html").read_text()


def test_remaining_time_counts_validation_too(tmp_path, monkeypatch):
    clock = iter([1000.0, 1000.0 + 3600.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    page = TrainingPage(tmp_path, ABOUT)
    page.update(history(1))
    assert f"{(EPOCHS - 1) * 2 // 60} h {(EPOCHS - 1) * 2 % 60} min" in page.path.read_text()  # 120 s an epoch
    page.update(history(2))
    hours = EPOCHS - 2
    assert f"{hours // 24} d {hours % 24} h" in page.path.read_text()
