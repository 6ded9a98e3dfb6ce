"""The public list, and that importing the package costs nothing."""

import subprocess
import sys

import pytest

import renalseg

HEAVY = ("torch", "monai", "nibabel", "numpy", "scipy", "matplotlib", "SimpleITK", "pydicom", "yaml")


def loaded_by(code: str) -> set[str]:
    """Modules of ``HEAVY`` that a fresh interpreter has loaded after ``code``."""
    code += f"\nimport sys; print(*(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_loads_nothing_heavy():
    assert loaded_by("import renalseg; renalseg.__version__; dir(renalseg)") == set()


def test_help_loads_nothing_heavy():
    code = """
import sys
from renalseg.cli import main
for arguments in (["--help"], ["segment", "--help"], ["train", "--help"], ["--version"]):
    sys.argv = ["renalseg", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
"""
    assert loaded_by(code) == set()


@pytest.mark.parametrize("name", renalseg.__all__)
def test_every_public_name_resolves(name):
    assert getattr(renalseg, name) is getattr(renalseg, name)
    assert name in dir(renalseg)


def test_names_that_are_not_public_are_refused():
    assert dir(renalseg) == sorted(renalseg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'segmenter'"):
        _ = renalseg.segmenter
