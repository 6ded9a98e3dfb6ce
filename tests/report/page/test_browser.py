"""The pages in a real browser: they draw, move, keep to themselves and print."""

import json
import re

import numpy as np
import pytest

from renalseg.report.page import Entry, write_case_page, write_cohort_page

READY = "document.body.dataset.viewer === 'ready'"
CONTENT_WIDTH_PX = 695  # of A4 without the margins of 13 mm, at 96 pixels an inch
A4_PT = (595.3, 841.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def case(folder, study, record, measurements):
    path = folder / "case.html"
    if not path.exists():
        write_case_page(path, *study, record, measurements)
    return path


@pytest.fixture(scope="module")
def shared_tab():
    return []


@pytest.fixture
def tab(chromium, case, shared_tab):
    """The page of the case, once for all tests, as it is after loading."""
    if not shared_tab:
        shared_tab.append(chromium.open(case))
    tab = shared_tab[0]
    tab.media("screen")
    tab.wait(READY)
    choose(tab, "plane", 0)
    choose(tab, "window", "400,40")
    tab.run("(o => { o.value = 35; o.dispatchEvent(new Event('input')) })(document.getElementById('opacity'))")
    tab.run("(o => o.checked || o.click())(document.getElementById('show-labels'))")
    tab.run("document.querySelector('button.go').click()")
    return tab


def slide(tab, value):
    tab.run(f"(s => {{ s.value = {value}; s.dispatchEvent(new Event('input', {{bubbles: true}})) }})({SLIDER})")


def choose(tab, name, value):
    tab.run(f"document.querySelector('input[name={name}][value=\"{value}\"]').click()")


SLIDER = "document.getElementById('slice')"
READOUT = "document.getElementById('readout').textContent"


def coloured(picture):
    """Pixels that are clearly no grey: labels, or the crosshair."""
    return (np.ptp(picture.astype(int), axis=2) > 25).sum()


def test_the_viewer_draws_and_nothing_complains(tab):
    picture = tab.picture("canvas")
    assert picture.std() > 20
    assert len(np.unique(picture)) > 50
    assert coloured(picture) > 2000
    assert tab.errors() == []


def test_nothing_is_asked_for_from_outside(tab):
    for plane in range(4):
        choose(tab, "plane", plane)
    tab.picture("canvas")
    assert tab.requests() == []
    assert tab.events("Network.webSocketCreated") == []
    assert tab.errors() == []


@pytest.mark.slow
def test_the_policy_of_the_page_forbids_it_too(chromium, case):
    tab = chromium.open(case)
    tab.run("fetch('https://example.org/x').catch(() => 0)")
    tab.run("new Promise(done => { const i = new Image(); i.onerror = done; i.src = 'https://example.org/x.png' })")
    assert any("Content Security Policy" in json.dumps(error) for error in tab.errors())
    assert not [e for e in tab.events("Network.responseReceived") if e["response"]["url"].startswith("https:")]
    tab.close()


def test_the_slider_leafs_through_the_slices(tab):
    last = int(tab.run(f"{SLIDER}.max"))
    slide(tab, last // 2)
    middle, words = tab.picture("canvas"), tab.run(READOUT)
    assert words.startswith(f"{last // 2} of {last}")
    slide(tab, last)
    moved = tab.picture("canvas")
    assert (middle != moved).mean() > 0.05
    assert tab.run(READOUT).startswith(f"{last} of {last}")
    slide(tab, last // 2)
    assert (tab.picture("canvas") == middle).all()


def test_the_slider_answers_to_keys(tab):
    tab.run(f"{SLIDER}.focus()")
    before = int(tab.run(f"{SLIDER}.value"))
    tab.key("ArrowLeft", 37)
    assert int(tab.run(f"{SLIDER}.value")) == before - 1
    assert tab.run(READOUT).startswith(f"{before - 1} of")
    assert tab.run(f"{SLIDER}.getAttribute('aria-valuetext')").startswith(f"slice {before - 1} of")


def test_it_starts_at_the_largest_lesion(chromium, case, measurements):
    tab = chromium.open(case)
    tab.wait(READY)
    z = measurements["lesions"][0]["centroid_ras_mm"][2]
    shown = float(re.search(r"z (\S+) mm", tab.run(READOUT))[1].replace("\N{MINUS SIGN}", "-"))
    assert abs(shown - z) <= 1.6  # half a slice
    hu = float(re.search(r"(\S+) HU", tab.run(READOUT))[1].replace("\N{MINUS SIGN}", "-"))
    assert -60 < hu < 140  # drawn as 10 in the cyst, 80 in the tumor, with noise of 15; +-50 is more than three of it
    assert tab.run(READOUT).endswith(("tumor", "cyst"))
    tab.close()


def test_a_lesion_can_be_shown(tab):
    slide(tab, 1)
    assert tab.run(READOUT).startswith("1 of")
    tab.click("button.go")
    assert not tab.run(READOUT).startswith("1 of")
    assert tab.run(READOUT).endswith(("tumor", "cyst"))


def test_the_right_of_the_patient_is_on_the_left(tab):
    """The tumor is in the left kidney, so its red lies in the right half of an axial picture."""
    tab.run("(o => { o.value = 100; o.dispatchEvent(new Event('input')) })(document.getElementById('opacity'))")
    picture = tab.picture("canvas").astype(int)
    red = (picture[..., 0] > 180) & (picture[..., 1] < 120) & (picture[..., 2] < 110)
    assert red.sum() > 200
    assert np.argwhere(red)[:, 1].mean() > picture.shape[1] / 2


def test_labels_can_be_hidden(tab):
    shown = coloured(tab.picture("canvas"))
    tab.click("#show-labels")
    hidden = coloured(tab.picture("canvas"))
    assert hidden < shown / 2
    tab.click("#show-labels")
    assert coloured(tab.picture("canvas")) == shown


def test_windows_change_the_grey(tab):
    tab.click("#show-labels")
    means = []
    for value in ("400,40", "200,60", "700,100"):
        choose(tab, "window", value)
        means.append(tab.picture("canvas").mean())
    assert len({round(m, 1) for m in means}) == 3


def test_every_plane_shows_something_else(tab):
    pictures = []
    for plane in range(4):
        choose(tab, "plane", plane)
        pictures.append(tab.picture("canvas"))
        assert pictures[-1].std() > 20
        assert tab.run(READOUT).split(" · ")[1][0] == "zyxz"[plane]
    assert all((a != b).mean() > 0.05 for i, a in enumerate(pictures) for b in pictures[:i])


def test_on_a_phone_nothing_is_wider_than_the_screen(chromium, case):
    tab = chromium.open(case, width=390, height=800)
    tab.wait(READY)
    assert tab.run("document.documentElement.scrollWidth") <= 390
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(chromium, case, dark):
    """WCAG AA: contrast of at least 4.5 : 1 for everything that is text."""
    tab = chromium.open(case, dark=dark)
    tab.wait(READY)
    worst = tab.run(CONTRAST)
    assert worst[0] >= 4.5, worst
    assert (tab.picture("header").mean() < 128) == dark
    tab.close()


CONTRAST = """
(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  let worst = [99, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length) continue;
    if (["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, walk.currentNode.data.trim()];
  }
  return worst;
})()
"""


def test_every_control_has_a_name(tab):
    nameless = tab.run(
        "[...document.querySelectorAll('input, button, a, canvas, output')].filter(e => e.tagName !== 'OUTPUT'"
        " && !(e.ariaLabel || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []


def test_a_canvas_without_a_size_is_left_alone(chromium, case):
    """As while it is printed, or in a window drawn together: negative sizes are errors of WebGL."""
    tab = chromium.open(case)
    tab.wait(READY)
    choose(tab, "plane", 3)
    tab.run("document.querySelector('.stage').style.width = 0")
    tab.run("new Promise(done => setTimeout(done, 300))")
    assert tab.errors() == []
    tab.run("document.querySelector('.stage').style.width = ''")
    assert tab.picture("canvas").std() > 20
    assert tab.errors() == []
    tab.close()


def test_without_scripts_the_picture_is_there(chromium, case):
    tab = chromium.open(case, script=False)
    picture = tab.picture(".overview img")
    assert picture.std() > 20
    assert (tab.picture(".viewer noscript") > 200).mean() > 0.5
    tab.close()


@pytest.mark.slow
def test_without_webgl_it_says_so(chromium, case, folder):
    """As on a machine whose driver refuses: the picture is named instead."""
    broken = folder / "no_webgl.html"
    stop = "<script>HTMLCanvasElement.prototype.getContext = () => null</script>"
    text = case.read_text(encoding="utf-8")
    broken.write_text(text.replace('<script type="application/json"', stop + '<script type="application/json"', 1))
    tab = chromium.open(broken)
    tab.wait("!document.getElementById('viewer-message').hidden")
    assert "no WebGL 2" in tab.run("document.getElementById('viewer-message').textContent")
    assert tab.run("document.getElementById('viewer').hidden")
    assert tab.errors() == []
    tab.close()


@pytest.mark.slow
def test_damaged_data_are_said(chromium, case, folder):
    broken = folder / "damaged.html"
    text = case.read_text(encoding="utf-8")
    broken.write_text(re.sub(r'"ct": "[^"]+"', '"ct": "AAAA"', text, count=1))
    tab = chromium.open(broken)
    tab.wait("!document.getElementById('viewer-message').hidden")
    assert "could not start" in tab.run("document.getElementById('viewer-message').textContent")
    tab.close()


def boxes(pdf):
    return [tuple(map(float, b.split())) for b in re.findall(rb"/MediaBox\s*\[([^\]]+)\]", pdf)]


def cut_off(chromium, path):
    """Elements that reach beyond the paper's content, while the page is laid out as for A4."""
    tab = chromium.open(path, width=CONTENT_WIDTH_PX)
    tab.media("print")
    found = tab.run(CUT_OFF)
    tab.close()
    return found


CUT_OFF = f"""
[...document.querySelectorAll("body *")].filter((e) => {{
  const style = getComputedStyle(e);
  if (!e.getClientRects().length || style.position === "absolute") return false;
  const hides = e.scrollWidth > e.clientWidth + 1 && style.overflowX !== "visible";
  return hides || e.getBoundingClientRect().right > {CONTENT_WIDTH_PX} + 0.5;
}}).map((e) => e.tagName + " " + e.textContent.slice(0, 60))
"""


def test_a_case_prints_on_a4(chromium, tab, case):
    pdf = tab.pdf()
    assert len(boxes(pdf)) >= 2
    for x, y, right, top in boxes(pdf):
        assert (x, y) == (0, 0)
        assert abs(right - A4_PT[0]) < 1
        assert abs(top - A4_PT[1]) < 1
    assert pdf.count(b"/Subtype /Image") == 1  # the still picture, and no canvas
    assert cut_off(chromium, case) == []
    tab.media("print")
    assert tab.run("document.querySelector('.viewer').getClientRects().length") == 0
    assert tab.run("document.querySelector('.overview img').getBoundingClientRect().height") > 200


@pytest.mark.slow
def test_print_is_light_whatever_the_screen(chromium, case):
    tab = chromium.open(case, dark=True)
    tab.media("print", dark=True)
    assert tab.picture("header").mean() > 230
    tab.close()


@pytest.fixture
def cohort(folder, record, measurements):
    low = {
        **record,
        "case": "b",
        "confidence": {"value": 0.2},
        "volumes_ml": {"kidney": 1.0, "tumor": 90.0, "cyst": 2.0},
    }
    entries = [
        Entry("a", record, measurements, "case.html"),
        Entry("b", low, None, None),
        Entry("c10", {**record, "volumes_ml": {"kidney": 1.0, "tumor": 8.5, "cyst": 0.0}}, measurements, "c 10#%.html"),
        Entry("c9", {**record, "volumes_ml": {}}, None, None),
        Entry("d", error="d.nii.gz is damaged; copy it again"),
    ]
    write_cohort_page(folder / "index.html", entries)
    return folder / "index.html"


NAMES = "[...document.querySelectorAll('tbody th')].map(e => e.textContent)"


def test_the_table_sorts_by_clicking(chromium, cohort, case):
    tab = chromium.open(cohort)
    assert tab.run(NAMES) == ["a", "b", "c10", "c9"]
    head = "thead th:nth-child(5)"
    tab.click(f"{head} button")
    assert tab.run(NAMES) == ["b", "a", "c10", "c9"]  # 90, 9, 8.5, none: as numbers, largest first
    assert tab.run(f"document.querySelector('{head}').getAttribute('aria-sort')") == "descending"
    tab.click(f"{head} button")
    assert tab.run(NAMES) == ["c10", "a", "b", "c9"]  # none stays last
    tab.click("thead th:nth-child(1) button")
    assert tab.run(NAMES) == ["a", "b", "c9", "c10"]
    assert tab.run("document.querySelectorAll('th[aria-sort=none]').length") == 11
    tab.run("document.querySelector('thead th:nth-child(11) button').focus()")
    tab.key("Enter", 13)
    assert tab.run(NAMES)[-1] == "b"  # the least certain
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["an_underlined_name_of_a_trial_" * 3, "a name in words " * 6])
def test_long_names_are_not_cut_off_on_paper(chromium, study, record, measurements, tmp_path, name):
    write_case_page(tmp_path / "case.html", *study, {**record, "case": name}, measurements)
    write_cohort_page(tmp_path / "index.html", [Entry(name, record, measurements, "x.html"), Entry(name, error=name)])
    assert cut_off(chromium, tmp_path / "case.html") == []
    assert cut_off(chromium, tmp_path / "index.html") == []


def test_the_check_of_the_paper_finds_what_is_cut_off(chromium, cohort, tmp_path):
    wide = cohort.read_text(encoding="utf-8").replace("</main>", '<p style="width: 900px">wide</p></main>')
    (tmp_path / "wide.html").write_text(wide, encoding="utf-8")
    assert cut_off(chromium, tmp_path / "wide.html") == ["P wide"]


def test_the_cohort_links_keeps_to_itself_and_prints(chromium, cohort, case):
    tab = chromium.open(cohort)
    links = tab.run("[...document.querySelectorAll('tbody a')].map(e => e.href)")
    assert links == [case.resolve().as_uri(), (cohort.parent / "c 10#%.html").resolve().as_uri()]
    assert tab.requests() == []
    assert tab.errors() == []
    assert all(abs(b[2] - A4_PT[0]) < 1 for b in boxes(tab.pdf()))
    assert cut_off(chromium, cohort) == []
    tab.close()
