"""Templates, their filters, and what every page shares. Every value is escaped; this package's own parts are not."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from renalseg import __version__
from renalseg.core.labels import LABELS
from renalseg.core.notice import NOTICE
from renalseg.predict.confidence import LOW

ABSENT = "–"


def render(template: str, **values: Any) -> str:
    """A page as text; ``template`` is a file of ``templates/``."""
    written = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    return _environment().get_template(template).render(**values, notice=NOTICE, version=__version__, written=written)


def resource(name: str) -> str:
    """The text of a file of this package."""
    return files("renalseg.report.page").joinpath(name).read_text(encoding="utf-8")


def data_uri(data: bytes) -> str:
    """A picture as a URI that holds it; PNG, JPEG or SVG, told by the first bytes."""
    kinds = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg"}
    kind = next((k for start, k in kinds.items() if data.startswith(start)), "image/svg+xml")
    return f"data:{kind};base64,{b64encode(data).decode()}"


def number(value: Any, digits: int = 1) -> str:
    """As in "12.3"; a dash where there is no value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ABSENT
    text = f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text if float(f"{value:.{digits}f}") else text.lstrip("\N{MINUS SIGN}")


def with_unit(value: Any, unit: str, digits: int = 1) -> str:
    """As in "12.3 ml", held together by a no-break space; a dash where there is no value."""
    text = number(value, digits)
    return text if text == ABSENT else f"{text}\N{NO-BREAK SPACE}{unit}"


def percent(value: Any) -> str:
    """As in "45 %" of 0.45."""
    return with_unit(value * 100 if isinstance(value, int | float) else None, "%", 0)


def notes_of(lesions: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each note once, with the lesions that it is about, as in "Tumor 1, Cyst 3"."""
    about: dict[str, list[str]] = {}
    for lesion in lesions:
        for note in lesion["notes"]:
            about.setdefault(str(note), []).append(f"{str(lesion['kind']).capitalize()} {lesion['id']}")
    return [(note, ", ".join(names)) for note, names in about.items()]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("renalseg.report.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "number": number,
        "unit": with_unit,
        "percent": percent,
        "data_uri": data_uri,
        "notes_of": notes_of,
    }
    made.globals |= {"own": lambda name: Markup(resource(name)), "label_table": LABELS, "low_confidence": LOW}
    return made
