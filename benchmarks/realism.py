"""Random phantoms beside real CT: a gallery to look at, and what can be measured of both.

    python benchmarks/realism.py --real REAL_CT_DIR --labels KITS23_LABELS --out DIR [--bodies DIR] [--cohort 200]
                                 [--phantoms 6] [--workers 1] [--seed 4711]

Writes ``gallery.html`` (one file, pictures inside), ``realism.md`` and ``realism.json`` (numbers), ``realism_hu.png``
(attenuation by tissue), ``realism_noise.png`` (noise power), and ``realism_gallery.png`` (the phantoms beside the real
CT that may be shown anywhere). Half of the phantoms draw their kidneys, half take
them from label maps; ``--bodies`` sets them into real bodies. REAL_CT_DIR is as in ``real_ct.py``.

The cohort of ``--cohort`` drawn phantoms is compared with the published percentiles of KiTS23 by the
Kolmogorov-Smirnov distance. Only its labels are kept: it is rendered with 128 x 128 pixels over the same field of
view, which takes a sixteenth of the work in plane, and its pixels are counted as on 512 x 512. A lesion under about
0.2 ml has few such pixels, so that the smallest volumes are coarse. Everything is kept in DIR; what is there already
is not done again.
"""

import argparse
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cc3d
import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image
from real_ct import CASES, CENTRES, reference
from scipy import ndimage

from renalseg import __version__
from renalseg.core.labels import LABELS
from renalseg.core.processes import spread
from renalseg.core.volume import Volume
from renalseg.io.files import atomic_path, write_json, write_text
from renalseg.io.kits import IMAGING, SEGMENTATION, KitsCase, list_cases, read_case
from renalseg.io.nifti import write_nifti
from renalseg.io.read import read_volume
from renalseg.phantom.case import render_case
from renalseg.phantom.cohort import RECORD, write_cohort
from renalseg.phantom.draws import MATRIX
from renalseg.report.inspect.cohort import inspect_dataset
from renalseg.report.inspect.quantities import BOX_VOXELS, GEOMETRY, PERCENTILES, VOLUMES, Quantity, Row
from renalseg.report.slices import AIR_HU, LEVEL_HU, WINDOW_HU, spans_of

COHORT_IN_PLANE = 128
MOST_SLICES = 160
"""Of the phantoms in the gallery: thick enough to render in seconds."""
PAGE_MB = 8.0
PICTURE_PX = 420
SHEET_CT, SHEET_COLUMNS = "pancreas_ct_cb_001", 4
"""The real CT of ``realism_gallery.png``: CC BY 4.0."""
VIEWS = ((0, "axial"), (1, "coronal"))
PATCH_PX, PATCHES, STRIDE_PX = 32, 200, 12
SOFT_HU, PATCH_RANGE_HU = (15.0, 170.0), 30.0
"""A patch for the noise: smoothed, all of it is soft tissue, and no two places differ by more."""
WINDOWS = {"fat": (-160, -40), "soft tissue": (0, 100)}
TISSUES = (*WINDOWS, *(label.name for label in LABELS))
HU_BINS = np.arange(-200, 401, 5)
PHANTOM_COLOUR, REAL_COLOURS = "#8b949e", ("#d1242f", "#0969da", "#8250df", "#1a7f37", "#bc4c00")


@dataclass(frozen=True)
class Scan:
    """A CT of the gallery.

    Attributes:
        name: as shown.
        caption: what it is, in words.
        ct: in HU.
        labels: kidneys, tumors and cysts on its grid; None where they are not known.
        centre: voxel (z, y) that the pictures go through.
        is_real: whether a patient was scanned.
    """

    name: str
    caption: str
    ct: Volume
    labels: Volume | None
    centre: tuple[int, int]
    is_real: bool


def real_scans(folder: Path) -> list[Scan]:
    """The real CTs that have kidneys."""
    scans = []
    for name, file in CASES.items():
        if not (folder / name / file).exists():
            continue
        ct = read_volume(folder / name / file)
        labels = reference(folder, name, ct)
        if labels is None and name not in CENTRES:
            continue
        centre = CENTRES[name][0][:2] if labels is None else centre_of(labels)
        scans.append(Scan(name, f"Real CT, {_grid(ct)}", ct, labels, centre, True))
    return scans


def phantoms(a: argparse.Namespace) -> list[Scan]:
    """Phantoms with drawn kidneys, and as many with those of label maps."""
    half = max(a.phantoms // 2, 1)
    options: dict[str, Any] = {"bodies_dir": a.bodies} if a.bodies else {}
    scans = []
    for kind, labels, limit in (
        ("drawn", None, MOST_SLICES),
        ("given", pick_maps(a.labels, a.out, half, a.seed), None),
    ):
        folder = a.out / "phantoms" / kind
        records = write_cohort(folder, half, a.seed, labels, a.workers, max_slices=limit, **options)
        for number, record in enumerate(records, 1):
            case = folder / str(record["case"])
            ct, truth = read_case(KitsCase(case.name, case / IMAGING, case / SEGMENTATION))
            facts = json.loads((case / RECORD).read_text())
            kidneys = "drawn kidneys" if labels is None else f"kidneys of the label map {facts['source']}"
            body = facts.get("body", "drawn")
            caption = f"Phantom, {facts['phase']}, {kidneys}, {body} body, {_grid(ct)}, noise {facts['noise_hu']} HU"
            scans.append(Scan(f"phantom {kind} {number}", caption, ct, truth, centre_of(truth), False))
    return scans


def pick_maps(labels: Path, out: Path, count: int, seed: int) -> Path:
    """A folder of links to ``count`` label maps of at most ``MOST_SLICES`` slices."""
    folder, cases = out / "labels", list_cases(labels)
    for i in np.random.default_rng(seed).permutation(len(cases)):
        source = cases[i].segmentation
        if len(list(folder.glob("*"))) >= count:
            break
        if source is None or nib.load(source).shape[0] > MOST_SLICES:
            continue
        link = folder / cases[i].case_id / SEGMENTATION
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(source.resolve())
    return folder


def centre_of(labels: Volume) -> tuple[int, int]:
    """The slice with most labelled area, and the coronal one with most."""
    found = labels.array > 0
    return int(found.sum(axis=(1, 2)).argmax()), int(found.sum(axis=(0, 2)).argmax())


def _grid(ct: Volume) -> str:
    dz, dy, _ = ct.spacing_mm
    return f"{' x '.join(map(str, ct.shape))} voxels, {dz:g} mm slices, {dy:.2f} mm pixels"


def body_of(ct: Volume) -> NDArray[np.bool_]:
    """The patient, bool [z, y, x]: the largest piece that is not air."""
    return np.asarray(cc3d.largest_k(np.ascontiguousarray(ct.array > AIR_HU), k=1, connectivity=6) > 0)


def picture(scan: Scan, axis: int) -> bytes:
    """The axial (0) or coronal (1) slice through the kidneys, cut to the body, as a grey PNG of square millimetres."""
    index, ct = scan.centre[axis], scan.ct
    rows = 1 if axis == 0 else 0
    shown = [
        slice(max(round(a / s + 0.5), 0), round(b / s + 0.5))
        for (a, b), s in zip(spans_of(ct, ()), ct.spacing_mm, strict=True)
    ]
    image = ct.array.take(index, axis)[shown[rows], shown[2]].astype(np.float32)
    grey = np.clip((image - LEVEL_HU) / WINDOW_HU + 0.5, 0, 1) * 255
    height_mm, width_mm = image.shape[0] * ct.spacing_mm[rows], image.shape[1] * ct.spacing_mm[2]
    scale = PICTURE_PX / max(width_mm, height_mm)
    size = (max(round(width_mm * scale), 1), max(round(height_mm * scale), 1))
    stream = BytesIO()
    Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def gallery(scans: Sequence[Scan], charts: Mapping[str, bytes]) -> str:
    """The page: a card for each scan, then the charts."""
    real, made = [s for s in scans if s.is_real], [s for s in scans if not s.is_real]
    cards = []
    for title, members in (("Real CT", real), ("Phantoms", made)):
        cards.append(f"<h2>{title}</h2><div class='cards'>")
        for scan in members:
            shown = "".join(_img(picture(scan, axis), f"{scan.name}, {view}") for axis, view in VIEWS)
            caption = f"<figcaption><b>{escape(scan.name)}</b><br>{escape(scan.caption)}</figcaption>"
            cards.append(f"<figure>{shown}{caption}</figure>")
        cards.append("</div>")
    cards += [f"<h2>{escape(title)}</h2><p>{_img(png, title)}</p>" for title, png in charts.items()]
    window = f"Window {LEVEL_HU - WINDOW_HU // 2} to {LEVEL_HU + WINDOW_HU // 2} HU; axial above, coronal below"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Phantoms beside real CT</title><style>'
        "body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1500px;background:#0d1117;color:#f0f3f6}"
        ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:16px}"
        "figure{margin:0}img{width:100%;display:block;margin-bottom:4px}figcaption,p{color:#9aa4b0;font-size:13px}"
        f"</style></head><body><h1>Phantoms beside real CT</h1><p>{window}; the patient's right is on the image's "
        f"left. No phantom shows a patient. renalseg {__version__}, research use only.</p>"
        f"{''.join(cards)}</body></html>\n"
    )


def _img(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def attenuation(scan: Scan, body: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """The HU of each of ``TISSUES``: labels by mask; fat and soft tissue by window, off the kidneys and the skin."""
    inside = ndimage.binary_erosion(body, np.ones((1, 5, 5)), iterations=2)
    if scan.labels is not None:
        inside &= scan.labels.array == 0
    around = scan.ct.array[inside]
    found = {n: around[(around > low) & (around < high)].astype(np.float32) for n, (low, high) in WINDOWS.items()}
    for label in LABELS:
        if scan.labels is not None and (mask := scan.labels.array == label.id).any():
            found[label.name] = scan.ct.array[mask].astype(np.float32)
    return found


@dataclass(frozen=True)
class Noise:
    """The noise of a scan: power in HU2 mm2 at ``frequency`` (cycles/mm), standard deviation, number of patches."""

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    sd_hu: float
    patches: int

    @property
    def mean_frequency(self) -> float:
        """Of the radially averaged spectrum, each ring weighted by its circumference."""
        weight = self.power * self.frequency
        return float((weight * self.frequency).sum() / weight.sum())


def noise_power(ct: Volume) -> Noise | None:
    """The two-dimensional noise power spectrum in flat patches of soft tissue, averaged over directions.

    Source: Siewerdsen et al. 2002, doi:10.1118/1.1513158. A quadratic surface is taken off each patch.
    """
    pixel = ct.spacing_mm[2]
    flat: list[tuple[float, int, int, int]] = []
    for z in range(ct.shape[0]):
        smooth = ndimage.gaussian_filter(ct.array[z].astype(np.float32), max(3.0 / pixel, 1.0))
        for y in range(0, ct.shape[1] - PATCH_PX, STRIDE_PX):
            for x in range(0, ct.shape[2] - PATCH_PX, STRIDE_PX):
                part = smooth[y : y + PATCH_PX : 3, x : x + PATCH_PX : 3]
                low, high = float(part.min()), float(part.max())
                if low > SOFT_HU[0] and high < SOFT_HU[1] and high - low < PATCH_RANGE_HU:
                    flat.append((high - low, z, y, x))
    if len(flat) < 5:
        return None
    chosen = sorted(flat)[:PATCHES]
    spectra = [_spectrum(ct.array[z, y : y + PATCH_PX, x : x + PATCH_PX], pixel) for _, z, y, x in chosen]
    power = np.mean(spectra, axis=0)
    steps = np.fft.fftfreq(PATCH_PX, pixel)
    radius = np.hypot(steps[:, None], steps[None, :])
    edges = np.linspace(0, 0.5 / pixel, PATCH_PX // 2 + 1)
    rings = np.digitize(radius.ravel(), edges) - 1
    inside = rings < PATCH_PX // 2
    count = np.bincount(rings[inside], minlength=PATCH_PX // 2)
    mean = np.bincount(rings[inside], power.ravel()[inside], minlength=PATCH_PX // 2) / np.maximum(count, 1)
    sd = float(np.sqrt(power.sum() * (1 / (PATCH_PX * pixel)) ** 2))
    return Noise((edges[:-1] + edges[1:]) / 2, mean, sd, len(chosen))


def _spectrum(patch: NDArray[np.generic], pixel: float) -> NDArray[np.float64]:
    y, x = np.mgrid[-1 : 1 : PATCH_PX * 1j, -1 : 1 : PATCH_PX * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    values = patch.astype(np.float64).ravel()
    rest = values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]
    spectrum: NDArray[np.float64] = np.abs(np.fft.fft2(rest.reshape(PATCH_PX, PATCH_PX))) ** 2
    return spectrum * pixel**2 / PATCH_PX**2


def render_labels(index: int, seed: int, folder: Path) -> None:
    """Renders one phantom of the cohort and keeps its labels; a finished one is not done again."""
    path = folder / f"case_{index:05d}" / SEGMENTATION
    if not path.exists():
        _, labels, _ = render_case((seed, index), in_plane=COHORT_IN_PLANE)
        write_nifti(labels, path)


def cohort_rows(a: argparse.Namespace) -> list[Row]:
    """Geometry and volumes of the cohort, as ``renalseg inspect`` measures them, on a matrix of 512."""
    folder = a.out / "cohort"
    render = partial(render_labels, seed=a.seed, folder=folder)
    for done, _ in enumerate(spread(render, range(a.cohort), a.workers), 1):
        if done % 20 == 0:
            print(f"cohort {done}/{a.cohort}", flush=True)
    wanted = {f"case_{i:05d}" for i in range(a.cohort)}
    rows = [case.row for case in inspect_dataset(folder, workers=a.workers).cases if case.case_id in wanted]
    ratio = MATRIX / COHORT_IN_PLANE
    for row in rows:
        for name, factor in (("in_plane_spacing_mm", 1 / ratio), ("roi_y", ratio), ("roi_x", ratio)):
            if isinstance(value := row[name], int | float):
                row[name] = value * factor
    return rows


def published_cdf(quantity: Quantity) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The published distribution function: values (logarithms of volumes), and the function just below and at each."""
    known = [
        (float(np.log(v)) if quantity.is_volume else v, p / 100)
        for v, p in zip(quantity.published or (), PERCENTILES, strict=True)
        if v is not None
    ]
    values = sorted({v for v, _ in known})
    below = np.array([min(p for w, p in known if w == v) for v in values])
    at = np.array([max(p for w, p in known if w == v) for v in values])
    return np.array(values), below, at


def ks_distance(sample: Sequence[float], quantity: Quantity) -> float:
    """The largest gap between the sample's distribution function and the published one, where that is known.

    The published one is linear between its percentiles; over the logarithm for volumes, which span three decades.
    """
    values, below, at = published_cdf(quantity)
    data = np.sort(np.log(sample) if quantity.is_volume else np.asarray(sample, dtype=np.float64))
    places = np.unique(np.concatenate([values, data[(data >= values[0]) & (data <= values[-1])]]))
    step = np.clip(np.searchsorted(values, places, side="right") - 1, 0, len(values) - 2)
    span = values[step + 1] - values[step]
    between = at[step] + (below[step + 1] - at[step]) * (places - values[step]) / span
    knot = np.isin(places, values)
    right = np.where(knot, at[np.clip(np.searchsorted(values, places), 0, len(values) - 1)], between)
    left = np.where(knot, below[np.clip(np.searchsorted(values, places), 0, len(values) - 1)], between)
    n = len(data)
    found_right = np.searchsorted(data, places, side="right") / n
    found_left = np.searchsorted(data, places, side="left") / n
    return float(max(np.abs(found_right - right).max(), np.abs(found_left - left).max()))


def cohort_table(rows: list[Row]) -> list[str]:
    """Percentiles beside the published ones, and the distance."""
    lines = [
        "| quantity | " + " | ".join(f"{p} %" for p in PERCENTILES) + " | n | KS distance |",
        "|---|" + "---|" * (len(PERCENTILES) + 2),
    ]
    for quantity in (*GEOMETRY[:3], *BOX_VOXELS, *VOLUMES):
        values = quantity.values(rows)
        published = quantity.published
        if not values or published is None:
            continue
        here = " | ".join(f"{v:.3g}" for v in np.percentile(values, PERCENTILES))
        there = " | ".join("-" if v is None else f"{v:g}" for v in published)
        lines.append(f"| {quantity.label}: phantoms | {here} | {len(values)} | {ks_distance(values, quantity):.3f} |")
        lines.append(f"| {quantity.label}: KiTS23 | {there} | {quantity.n_published} | |")
    return lines


def hu_table(found: Mapping[str, Mapping[str, NDArray[np.float32]]], scans: Sequence[Scan]) -> list[str]:
    """Median (5 to 95 %) of each tissue in each scan."""
    lines = ["| scan | " + " | ".join(TISSUES) + " |", "|---|" + "---|" * len(TISSUES)]
    for scan in scans:
        cells = []
        for tissue in TISSUES:
            values = found[scan.name].get(tissue)
            if values is None or not len(values):
                cells.append("-")
            else:
                low, middle, high = np.percentile(values, (5, 50, 95))
                cells.append(f"{middle:.0f} ({low:.0f} to {high:.0f})")
        lines.append(f"| {scan.name} | " + " | ".join(cells) + " |")
    return lines


def noise_table(found: Mapping[str, Noise | None]) -> list[str]:
    """Standard deviation and mean frequency."""
    lines = ["| scan | patches | noise, HU | mean frequency, cycles/mm |", "|---|---|---|---|"]
    for name, noise in found.items():
        if noise is None:
            lines.append(f"| {name} | too few flat patches | - | - |")
        else:
            lines.append(f"| {name} | {noise.patches} | {noise.sd_hu:.1f} | {noise.mean_frequency:.3f} |")
    return lines


def colours(scans: Sequence[Scan]) -> dict[str, str]:
    """One colour for each real scan, grey for phantoms."""
    real = [scan.name for scan in scans if scan.is_real]
    return {
        s.name: REAL_COLOURS[real.index(s.name) % len(REAL_COLOURS)] if s.is_real else PHANTOM_COLOUR for s in scans
    }


def draw_hu(found: Mapping[str, Mapping[str, NDArray[np.float32]]], scans: Sequence[Scan]) -> bytes:
    """Histograms by tissue."""
    figure = Figure(figsize=(16, 3.6), dpi=100, layout="constrained")
    shown = colours(scans)
    for axes, tissue in zip(figure.subplots(1, len(TISSUES)), TISSUES, strict=True):
        for scan in scans:
            values = found[scan.name].get(tissue)
            if values is not None and len(values):
                density, _ = np.histogram(values, HU_BINS, density=True)
                style = {"color": shown[scan.name], "linewidth": 1.8 if scan.is_real else 0.9}
                axes.plot((HU_BINS[:-1] + HU_BINS[1:]) / 2, density, zorder=2 + scan.is_real, **style)
        limits = WINDOWS.get(tissue, (-100, 350))
        axes.set(title=tissue, xlabel="HU", xlim=limits, yticks=[])
    _legend(figure, scans)
    return _png(figure)


def draw_sheet(scans: Sequence[Scan]) -> bytes:
    """Axial slices of ``SHEET_CT`` and of all phantoms in one picture, in the gallery's window."""
    shown = [scan for scan in scans if scan.name == SHEET_CT or not scan.is_real]
    rows = -(-len(shown) // SHEET_COLUMNS)
    figure = Figure(figsize=(3.4 * SHEET_COLUMNS, 2.7 * rows), dpi=100, layout="constrained")
    for axes, scan in zip_longest(figure.subplots(rows, SHEET_COLUMNS, squeeze=False).ravel(), shown):
        axes.axis("off")
        if scan is not None:
            axes.imshow(Image.open(BytesIO(picture(scan, 0))), cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"real CT ({SHEET_CT})" if scan.is_real else scan.name, fontsize=9)
    return _png(figure)


def draw_noise(found: Mapping[str, Noise | None], scans: Sequence[Scan]) -> bytes:
    """Spectra as they are, and each over its own mean: the level and the texture."""
    figure = Figure(figsize=(13, 4.4), dpi=100, layout="constrained")
    shown = colours(scans)
    level, texture = figure.subplots(1, 2)
    for scan in scans:
        noise = found[scan.name]
        if noise is not None:
            style = {"color": shown[scan.name], "linewidth": 1.8 if scan.is_real else 0.9, "zorder": 2 + scan.is_real}
            level.semilogy(noise.frequency[1:], noise.power[1:], **style)
            texture.plot(noise.frequency[1:], noise.power[1:] / noise.power[1:].mean(), **style)
    level.set(title="Noise power, HU² mm²", xlabel="cycles/mm", ylim=(1e-1, None))
    texture.set(title="Noise power over its mean", xlabel="cycles/mm")
    _legend(figure, scans)
    return _png(figure)


def _legend(figure: Figure, scans: Sequence[Scan]) -> None:
    names = [(scan.name, colours(scans)[scan.name]) for scan in scans if scan.is_real] + [("phantoms", PHANTOM_COLOUR)]
    lines = [Line2D([], [], color=colour, label=name) for name, colour in names]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9)


def _png(figure: Figure) -> bytes:
    stream = BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": f"renalseg {__version__}"})
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bodies", type=Path)
    parser.add_argument("--cohort", type=int, default=200)
    parser.add_argument("--phantoms", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=4711)
    a = parser.parse_args()
    scans = [*real_scans(a.real), *phantoms(a)]
    print(f"{len(scans)} scans", flush=True)
    bodies = {scan.name: body_of(scan.ct) for scan in scans}
    found = {scan.name: attenuation(scan, bodies[scan.name]) for scan in scans}
    noise = {scan.name: noise_power(scan.ct) for scan in scans}
    charts = {"Attenuation by tissue": draw_hu(found, scans), "Noise": draw_noise(noise, scans)}
    for name, png in zip(("realism_hu.png", "realism_noise.png"), charts.values(), strict=True):
        with atomic_path(a.out / name) as temporary:
            temporary.write_bytes(png)
    with atomic_path(a.out / "realism_gallery.png") as temporary:
        temporary.write_bytes(draw_sheet(scans))
    page = gallery(scans, charts)
    if len(page) > PAGE_MB * 1e6:
        parser.error(f"the page would have {len(page) / 1e6:.1f} MB, more than {PAGE_MB:g}; use fewer --phantoms")
    write_text(page, a.out / "gallery.html")
    rows = cohort_rows(a)
    n = len(rows)
    text = [
        "# Phantoms beside real CT",
        "",
        f"renalseg {__version__}, seed {a.seed}, {'real' if a.bodies else 'drawn'} bodies.",
        "",
        "## Attenuation in HU: median (5 to 95 %); fat and soft tissue by window",
        "",
        *hu_table(found, scans),
        "",
        "## Noise in flat soft tissue",
        "",
        *noise_table(noise),
        "",
        f"## Geometry and volumes of {n} drawn phantoms beside the percentiles of KiTS23",
        "",
        f"By chance alone a distance of {1.36 / np.sqrt(n):.3f} is exceeded in 5 % of such cohorts of {n}. The "
        "published function is taken as linear between the percentiles (of volumes: over their logarithm). That adds "
        "to the distance of slice spacing, which has few values. Labels rendered with 128 x 128 pixels.",
        "",
        *cohort_table(rows),
        "",
    ]
    write_text("\n".join(text), a.out / "realism.md")
    numbers = {
        "cohort": rows,
        "noise": {k: None if v is None else {"sd_hu": v.sd_hu, "mean": v.mean_frequency} for k, v in noise.items()},
    }
    write_json(numbers, a.out / "realism.json")
    print("\n".join(text))


if __name__ == "__main__":
    main()
