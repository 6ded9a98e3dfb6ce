import re

import pytest

from renalseg.core.errors import OutputError
from renalseg.report.page import Entry, write_cohort_page
from renalseg.report.page.histogram import MOST_BINS, bin_counts, bin_edges, histogram


@pytest.fixture
def write(tmp_path):
    def call(entries, **more):
        write_cohort_page(tmp_path / "index.html", entries, **more)
        return (tmp_path / "index.html").read_text(encoding="utf-8")

    return call


def keys(text):
    """The sort keys of each row of the table."""
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", text, re.DOTALL)
    return [re.findall(r'data-key="([^"]*)"', row) for row in rows]


def test_a_row_a_case(write, record, measurements):
    text = write([Entry("b", record), Entry("a", record, measurements, "a.html")])
    assert keys(text) == [
        ["a", "150.0", "78.4", "78.4", "9.0", "0.9", "1", "1", "28.3", "6", "0.31", "1"],
        ["b", "150.0", "", "", "9.0", "0.9", "", "", "", "", "0.31", "1"],
    ]
    assert '<a href="a.html">a</a>' in text
    assert "6a" in text
    assert text.count('class="n flag"') == 4  # confidence and warnings of both
    assert text.count("look at the labels") == 2


def test_small_pieces_are_not_counted(write, record, measurements):
    tumor = measurements["lesions"][0]
    small = {**tumor, "id": 9, "volume_ml": 0.4, "axial_diameter": {"mm": 77.0}}
    row = keys(write([Entry("a", record, measurements | {"lesions": [*measurements["lesions"], small]})]))[0]
    assert row[6:9] == ["1", "1", "28.3"]


@pytest.mark.parametrize(
    ("ml", "measured_ml", "expected"), [(0.4, None, 0), (0.6, None, 1), (0.6, 0.3, 0), (0.6, 0.5, 1)]
)
def test_cases_with_a_tumor(write, record, measurements, ml, measured_ml, expected):
    lesion = {**measurements["lesions"][0], "volume_ml": measured_ml}
    found = measurements | {"lesions": [lesion]} if measured_ml else None
    text = write([Entry("a", record | {"volumes_ml": {"tumor": ml}}, found)])
    assert f"<dt>With a tumor</dt><dd><b>{expected}</b>" in text


def test_columns_without_any_value_are_left_out(write, record):
    assert keys(write([Entry("b", record)])) == [["b", "150.0", "9.0", "0.9", "0.31", "1"]]
    assert "Right kidney" not in write([Entry("b", record)])


def test_hostile_names_stay_text(write, record):
    name = '"><script>hostile()</script>'
    text = write(
        [Entry(name, {**record, "warnings": [name]}, None, f"{name}.html"), Entry("x", error=name)], title=name
    )
    assert "<script>hostile" not in text
    assert 'href="%22%3E%3Cscript%3Ehostile%28%29%3C/script%3E.html"' in text


def test_a_name_is_no_scheme(write, record):
    assert 'href="javascript%3Ahostile%28%29.html"' in write([Entry("x", record, None, "javascript:hostile().html")])


def test_failed_cases_are_said(write, record):
    text = write([Entry("a", record), Entry("b", error="b.nii.gz is damaged; copy it again")])
    assert "<b>b</b>: b.nii.gz is damaged; copy it again" in text
    assert len(keys(text)) == 1


def test_only_failed_cases(write):
    text = write([Entry("b", error="damaged")])
    assert "damaged" in text
    assert "<table" not in text
    assert "<svg" not in text


def test_charts_of_what_there_is(write, record, measurements):
    titles = re.compile(r"<h3>(.*?)</h3>")
    assert titles.findall(write([Entry("a", record)])) == ["Volume of all tumors of a case", "Confidence"]
    assert titles.findall(write([Entry("a", record, measurements)])) == [
        "Parenchyma of a kidney",
        "Volume of all tumors of a case",
        "Axial diameter of a tumor",
        "Axial diameter of a cyst",
        "Confidence",
    ]


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "index.html").mkdir()
    with pytest.raises(OutputError, match=r"index\.html could not be written"):
        write_cohort_page(tmp_path / "index.html", [])


@pytest.mark.parametrize(
    "values", [[5.0], [0.0], [0.0, 0.0], [1.0, 2.0, 3.0], [0.001, 0.002], [3.0, 2500.0], [99.9, 100.1], [-3.0, 4.0]]
)
def test_bins_hold_every_value_once(values):
    edges = bin_edges(values, None)
    assert edges == sorted(edges)
    assert 2 <= len(edges) <= MOST_BINS + 1
    assert edges[0] <= min(values)
    assert edges[-1] >= max(values)
    assert sum(bin_counts(values, edges)) == len(values)


def test_bins_are_half_open_but_for_the_last():
    edges = bin_edges([], (0.0, 1.0))
    assert edges == pytest.approx([i / 10 for i in range(11)])
    assert bin_counts([0.0, 0.1, 0.95, 1.0], edges) == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]


def test_a_histogram_says_its_numbers_and_marks_what_is_low():
    svg = histogram("Confidence", "", [0.05, 0.45, 0.5, 0.9], (0.0, 1.0), low=0.5)
    assert "n = 4, median 0.475, 0.05 to 0.9" in svg
    assert svg.count('class="bar low"') == 2
    assert svg.count('class="bar"') == 2
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert len(set(heights)) == 1
