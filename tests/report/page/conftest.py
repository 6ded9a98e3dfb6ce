"""A real browser for the pages: Chromium, driven through its own debugging pipe, without a driver or a library."""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
TIMEOUT_S = 60
LAUNCHER = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for number, fd in zip((3, 4), pipes):
    os.dup2(fd, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes Chromium, which reads commands from file 3 and answers into file 4."""


class Chromium:
    """One browser process; ``open`` gives a page in a tab of its own."""

    def __init__(self, program, folder):
        from_test, self._write = os.pipe()
        self._read, to_test = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        arguments = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(from_test), str(to_test), *command]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(arguments, pass_fds=(from_test, to_test), **silent)
        os.close(from_test)
        os.close(to_test)
        self._last, self._rest, self.events = 0, b"", []

    def close(self):
        try:
            self.call("Browser.close")
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired, TimeoutError):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method, session=None, **params):
        """Sends a command and returns its result; events that come meanwhile are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline):
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError(f"Chromium gave no answer within {TIMEOUT_S} s")
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise OSError("Chromium has ended")
            self._rest += chunk
        answer, self._rest = self._rest.split(b"\0", 1)
        return json.loads(answer)

    def open(self, path, width=1000, height=600, script=True, dark=False):
        return Tab(self, path, width, height, script, dark)


class Tab:
    """A page in the browser: runs JavaScript in it, takes pictures of it, knows what went wrong."""

    def __init__(self, browser, path, width, height, script, dark):
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._target, self._script = target, script
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.media("screen", dark)
        if not script:
            self.call("Emulation.setScriptExecutionDisabled", value=True)
        self.url = Path(path).resolve().as_uri()
        self.call("Page.navigate", url=self.url)
        self.wait_event("Page.loadEventFired")

    def call(self, method, **params):
        return self._browser.call(method, self._session, **params)

    def media(self, kind, dark=False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=kind, features=[scheme])

    def close(self):
        self._browser.call("Target.closeTarget", targetId=self._target)

    def events(self, method):
        return [
            e["params"] for e in self._browser.events if e.get("sessionId") == self._session and e["method"] == method
        ]

    def wait_event(self, method):
        deadline = time.monotonic() + TIMEOUT_S
        while not self.events(method):
            assert time.monotonic() < deadline, f"no {method}"
            self.run("0")

    def run(self, expression):
        """The JSON value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        deadline = time.monotonic() + TIMEOUT_S
        while not self.run(expression):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.errors()}"
            time.sleep(0.05)

    def key(self, name, code):
        text = {"text": "\r"} if name == "Enter" else {}
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more)

    def click(self, selector):
        place = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{place}.scrollIntoView({{block: 'center'}})")
        x, y = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({place}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, selector=None):
        """uint8 [y, x, 3] of the element, as the browser composes it; the whole page where there is no selector."""
        place = f"document.querySelector({json.dumps(selector or 'html')})"
        if self._script:
            self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        x, y, width, height = self.run(
            f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])({place}.getBoundingClientRect())"
        )
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        png = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        with Image.open(io.BytesIO(base64.b64decode(png))) as image:
            return np.asarray(image.convert("RGB"))

    def pdf(self):
        self.media("")
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])

    def errors(self):
        """What a developer would find red or yellow in the console."""
        found = [e["exceptionDetails"] for e in self.events("Runtime.exceptionThrown")]
        found += [e for e in self.events("Runtime.consoleAPICalled") if e["type"] in ("error", "warning", "assert")]
        return found + [
            e["entry"] for e in self.events("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")
        ]

    def requests(self):
        """URLs that were asked for beside the page and what it holds itself."""
        urls = [e["request"]["url"] for e in self.events("Network.requestWillBeSent")]
        return [u for u in urls if u.split("#")[0] != self.url and not u.startswith(("data:", "blob:"))]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None or os.name != "posix":
        pytest.skip("no Chromium here (on Debian: apt-get install chromium)")
    browser = Chromium(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


SHAPE, SPACING_MM = (40, 90, 120), (3.0, 2.0, 2.0)
RIGHT_MM, LEFT_MM, TUMOR_MM = (60, 90, 60), (60, 90, 180), (45, 90, 200)


def _ball(centre_mm, radii_mm):
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    return sum(((i * s - c) / r) ** 2 for i, s, c, r in zip(axes, SPACING_MM, centre_mm, radii_mm, strict=True)) < 1


@pytest.fixture(scope="session")
def study():
    """CT and labels of two kidneys, the left one with a tumor that holds a cyst."""
    labels = np.zeros(SHAPE, np.uint8)
    for label, centre, radii in (
        (KIDNEY, RIGHT_MM, (40, 22, 22)),
        (KIDNEY, LEFT_MM, (40, 22, 22)),
        (TUMOR, TUMOR_MM, (14, 14, 14)),
        (CYST, TUMOR_MM, (6, 6, 6)),
    ):
        labels[_ball(centre, radii)] = label
    noise = np.random.default_rng(0).normal(0, 15, SHAPE)
    hu = np.where(_ball((60, 90, 120), (500, 80, 110)), 40, -1000) + noise + np.array([0, 140, 40, -30])[labels]
    ct = Volume.from_array(hu.astype(np.int16), SPACING_MM, "study")
    return ct, ct.with_array(labels)


@pytest.fixture
def record():
    """As ``renalseg segment`` writes it."""
    return {
        "case": "study",
        "kidney_found": True,
        "volumes_ml": {"kidney": 150.0, "tumor": 9.0, "cyst": 0.9},
        "warnings": ["Low confidence 0.31 (limit 0.5): look at the labels."],
        "confidence": {"value": 0.31},
        "shape_zyx": list(SHAPE),
        "spacing_mm_zyx": list(SPACING_MM),
        "timings_s": {"coarse": 0.25, "total": 2.5},
        "peak_memory_mb": {"host": 812.0, "device": None},
        "device": "cpu",
        "precision": "fp32",
        "mirror_z": True,
        "renalseg": "0.1.0",
        "torch": "2.13.0",
        "preset": "tiny",
        "config_sha256": "c" * 64,
        "weights": [{"path": "default", "sha256": "d" * 64}],
        "weights_sha256": "e" * 64,
        "input": "study.nii.gz",
    }


@pytest.fixture
def measurements(study):
    """As ``renalseg.report.measure`` gives them, with nephrometry; the numbers are made up."""
    at = [float(v) for v in (study[0].affine @ [*(m / s for m, s in zip(TUMOR_MM, SPACING_MM, strict=True)), 1])[:3]]
    volumes = {"parenchyma": 78.4, "tumor": 0.0, "cyst": 0.0, "total": 78.4}
    kidney = {"note": "", "length_mm": 80.1, "touches_border": [], "centroid_ras_mm": at}
    lesion = {
        "side": "left",
        "volume_ml": 10.6,
        "voxels": 880,
        "centroid_ras_mm": at,
        "box_zyx": {"start": [1, 2, 3], "stop": [4, 5, 6]},
        "axial_diameter": {"mm": 28.3, "slice": 15, "ends_ras_mm": [at, at]},
        "diameter_3d": {"mm": 29.4, "ends_ras_mm": [at, at]},
        "craniocaudal_mm": 27.0,
        "polar": "upper",
        "face": None,
        "hu": {"mean": -81.2, "sd": 15.0, "p5": -100, "p25": -90, "median": -81, "p75": -70, "p95": -60},
        "exophytic_share": 0.42,
        "contact_area_mm2": 512.0,
        "sinus_distance_mm": None,
        "notes": ["No sinus distance: the sinus is not told."],
        "nephrometry": None,
    }
    part = {"points": 1, "value": 28.3, "unit": "mm", "why": "28.3 mm, at most 40 mm"}
    nephrometry = {
        "renal": {"total": 6, "suffix": "a", "parts": dict.fromkeys("REN", part) | {"A": {**part, "points": None}}},
        "padua": {"total": None, "suffix": "", "parts": {"Size": part}},
        "c_index": {"value": 1.234},
        "abstained": ["SPARE is not told: no sinus."],
    }
    return {
        "schema": "renalseg-measurements/1",
        "case": "study",
        "kidneys": [
            {**kidney, "side": "right", "volumes_ml": volumes},
            {**kidney, "side": "left", "volumes_ml": volumes},
        ],
        "lesions": [
            {**lesion, "id": 1, "kind": "tumor", "nephrometry": nephrometry},
            {**lesion, "id": 2, "kind": "cyst", "volume_ml": 0.9},
        ],
        "warnings": ["The left kidney is cut by the scan."],
        "notice": "Research use only. Not a medical device.",
    }
