import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from renalseg.core.errors import GeometryError, OutputError
from renalseg.core.labels import TUMOR
from renalseg.core.volume import Volume
from renalseg.report.page import write_case_page
from renalseg.report.page.environment import number, percent, with_unit

HOSTILE = "</script><script>hostile(1)</script><img src=x onerror=hostile(2)>\"' &amp; {{7*7}}"


class Page(HTMLParser):
    """What a browser would load, run and show."""

    VOID = ("meta", "img", "input", "link", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.text, self.tags, self.handlers = [], [], [], [], []
        self.scripts, self.ids, self.alts = [], [], []
        self.feed(text)
        assert self.open == []
        self.words = " ".join(" ".join(self.text).split()).replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "poster", "background")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture
def quick_overview(monkeypatch):
    """A few bytes for the still picture, whose drawing takes most of the time."""
    monkeypatch.setattr("renalseg.report.page.case._overview", lambda ct, labels, name: b"\xff\xd8 picture")


@pytest.fixture
def write(tmp_path, study, record, measurements, quick_overview):
    """Writes the page; arguments replace those of the study."""

    def call(ct=study[0], labels=study[1], record=record, measurements=measurements, sketches=None):
        write_case_page(tmp_path / "case.html", ct, labels, record, measurements, sketches)
        return (tmp_path / "case.html").read_text(encoding="utf-8")

    return call


def test_a_page_stands_alone(write):
    page = Page(write(sketches={1: b"\x89PNG sketch", 2: b"<svg/>"}))
    assert page.loads
    assert all(address.startswith(("data:image/", "#")) for address in page.loads)
    assert not page.handlers
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))


def test_its_style_loads_nothing(write):
    text = write()
    for style in re.findall(r"<style>(.*?)</style>", text, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style
    assert "default-src 'none'" in text


def test_what_a_reader_needs_is_there(write):
    words = Page(write()).words
    for part in (
        "Research use only. Not a medical device.",
        "Right kidney 78 ml",
        "1 tumor, 1 cyst",
        "Largest tumor 28 mm",
        "Low confidence 0.31 (limit 0.5): look at the labels.",
        "The left kidney is cut by the scan.",
        "Tumor 1 left 28.3 29.4 27.0 10.6 upper 6a \N{MINUS SIGN}81 ± 15 42 % – 5.1",
        "No sinus distance: the sinus is not told.",
        "R.E.N.A.L. 6a",
        "28.3 mm, at most 40 mm",
        "PADUA not told",
        "C-index 1.23",
        "SPARE is not told: no sinus.",
        f"SHA-256 {'c' * 64}",
        f"SHA-256 {'e' * 64}",
        "Preset tiny",
        "coarse 0.25 s, total 2.50 s",
        "120 × 90 × 40 voxels of 2 × 2 × 3 mm",
    ):
        assert part in words, part


def test_hostile_text_stays_text(write, record, measurements):
    record |= {"case": HOSTILE, "warnings": [HOSTILE], "preset": HOSTILE, "input": HOSTILE}
    measurements["lesions"][0]["notes"] = [HOSTILE]
    measurements["lesions"][0]["nephrometry"]["renal"]["parts"]["R"]["why"] = HOSTILE
    measurements["lesions"][0]["side"] = measurements["kidneys"][0]["note"] = HOSTILE
    page = Page(write(record=record, measurements=measurements))
    assert page.words.count("<script>hostile(1)</script>") >= 8
    assert "{{7*7}}" in page.words
    assert not any("hostile(" in script for script in page.scripts)
    assert page.tags.count("script") == 3
    assert page.tags.count("img") == 1
    assert not page.handlers


def test_a_point_that_is_no_number_runs_nothing(write, measurements):
    measurements["lesions"][0]["centroid_ras_mm"] = ['"><script>hostile(1)</script>']
    page = Page(write(measurements=measurements))
    assert page.tags.count("script") == 3


def test_the_scene_can_be_read_back(write):
    page = Page(write())
    scene = json.loads(page.scripts[0])
    assert set(scene) == {"ct", "labels", "colours", "window", "start"}
    assert scene["window"] == [-160, 240]


def test_without_measurements_it_starts_at_the_slice_with_most_tumor(write, study):
    start = json.loads(Page(write(measurements=None)).scripts[0])["start"]
    z, y, x, _ = np.linalg.inv(study[0].affine) @ [*start, 1.0]
    tumor = (study[1].array == TUMOR).sum(axis=(1, 2))
    assert tumor[round(z)] == tumor.max()
    assert abs(x * 2.0 - 200) < 3
    assert abs(y * 2.0 - 90) < 3


def test_without_measurements_it_says_what_the_record_says(write):
    words = Page(write(measurements=None)).words
    assert "Kidney 150.0 ml" in words
    assert "Tumor 9.0 ml" in words
    for part in ("Lesions", "Nephrometry", "Right kidney", "No tumor or cyst"):
        assert part not in words


def test_without_nephrometry_there_is_no_such_section(write, measurements):
    for lesion in measurements["lesions"]:
        del lesion["nephrometry"]
    words = Page(write(measurements=measurements)).words
    assert "Lesions" in words
    assert "Nephrometry" not in words
    assert "R.E.N.A.L." not in words


def test_many_scored_lesions_do_not_make_a_book(write, measurements):
    tumor = measurements["lesions"][0]
    many = [{**tumor, "id": i, "volume_ml": 30.0 - i} for i in range(1, 21)] + measurements["lesions"][1:]
    words = Page(write(measurements=measurements | {"lesions": many})).words
    assert words.count("PADUA not told") == 5
    assert "The 5 largest of 20 tumors" in words
    assert "Tumor 20 left" in words


def test_small_pieces_are_listed_apart_and_not_counted(write, measurements):
    tumor, cyst = measurements["lesions"]
    small = [{**tumor, "id": 3, "volume_ml": 0.499}, {**cyst, "id": 4, "volume_ml": 0.03}]
    words = Page(write(measurements=measurements | {"lesions": [tumor, cyst, *small]})).words
    assert "Lesions 2 1 tumor, 1 cyst; 2 under 0.5 ml" in words
    assert "2 pieces under 0.5 ml Lesion Side" in words
    assert words.index("2 pieces under") < words.index("Tumor 3 left") < words.index("Nephrometry")
    assert "27.0 0.03" in words
    assert words.count("PADUA not told") == 1
    words = Page(write(measurements=measurements | {"lesions": small})).words
    assert "No tumor or cyst of at least 0.5 ml was labelled." in words
    assert "Largest tumor" not in words


def test_a_note_is_said_once_with_the_lesions_that_it_is_about(write):
    assert Page(write()).words.count("No sinus distance") == 1
    assert "Tumor 1, Cyst 2: No sinus distance: the sinus is not told." in Page(write()).words


def test_a_part_that_was_not_told_is_left_to_the_reason(write, measurements):
    renal = measurements["lesions"][0]["nephrometry"]["renal"]
    renal["parts"]["N"] = {**renal["parts"]["R"], "points": None, "why": "Not told: no sinus."}
    words = Page(write(measurements=measurements)).words
    assert "Not told: no sinus." not in words
    assert "A a 28.3 mm, at most 40 mm" in words  # a letter in place of points


def test_no_lesion(write, measurements):
    words = Page(write(measurements=measurements | {"lesions": []})).words
    assert "No tumor or cyst was labelled." in words
    assert "Lesions 0 none" in words


def test_no_kidney(write, study, record, measurements):
    nothing = study[1].with_array(np.zeros_like(study[1].array))
    record |= {"kidney_found": False, "volumes_ml": dict.fromkeys(("kidney", "tumor", "cyst"), 0.0)}
    words = Page(write(labels=nothing, record=record, measurements=measurements | {"lesions": [], "kidneys": []})).words
    assert "No kidney found in this CT." in words
    assert "Kidneys none found" in words
    assert "Whole scan" in words


def test_a_record_that_holds_little(write):
    words = Page(write(record={}, measurements=None)).words
    assert words.startswith("study")
    assert "None" not in words


def test_a_lesion_without_values(write, measurements):
    nothing = dict.fromkeys(("hu", "polar", "exophytic_share", "contact_area_mm2"), None)
    measurements["lesions"][1] |= nothing
    assert "Cyst 2 left 28.3 29.4 27.0 0.9 – – – – – – Show" in Page(write(measurements=measurements)).words


def test_a_kidney_cut_by_the_scan_is_named(write, measurements):
    measurements["kidneys"][1] |= {"touches_border": ["superior"], "note": "the only kidney found"}
    words = Page(write(measurements=measurements)).words
    assert "the only kidney found cut off by the scan's superior border" in words
    assert "80 mm long, cut off by the scan" in words


def test_pictures_have_words(write):
    page = Page(write(sketches={1: b"\xff\xd8 sketch"}))
    assert len(page.alts) == 2
    assert all(page.alts)


def test_labels_on_another_grid(write, study):
    with pytest.raises(GeometryError, match="not on the grid"):
        write(labels=Volume.from_array(np.zeros((4, 4, 4), np.uint8), (1, 1, 1)))


def test_a_folder_in_the_way(study, record, tmp_path):
    (tmp_path / "case.html").mkdir()
    with pytest.raises(OutputError, match=r"case\.html could not be written"):
        write_case_page(tmp_path / "case.html", *study, record)


@pytest.mark.slow
def test_a_large_noisy_ct_stays_under_8_mb(tmp_path, record):
    """The worst case: noise over the whole range of HU packs badly; 34 million voxels."""
    hu = np.random.default_rng(0).integers(-250, 450, (130, 512, 512), np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    labels[10:120, 100:400, 60:460] = 1
    ct = Volume.from_array(hu, (1.0, 0.8, 0.8))
    write_case_page(tmp_path / "case.html", ct, ct.with_array(labels), record)
    assert (tmp_path / "case.html").stat().st_size < 8_000_000


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (1.25, "1.2"), (-0.01, "0.0"), (-3, "\N{MINUS SIGN}3.0"), ("x", "–"), (True, "–")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_units():
    assert with_unit(3.14, "mm") == "3.1\N{NO-BREAK SPACE}mm"
    assert with_unit(None, "mm") == percent(None) == "–"
    assert percent(0.456) == "46\N{NO-BREAK SPACE}%"
