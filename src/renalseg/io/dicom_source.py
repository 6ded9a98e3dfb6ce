"""Where DICOM objects come from: the files of a folder, or the members of a zip, read in memory one at a time."""

import io
import logging
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from renalseg.core.errors import InputError

_PREAMBLE, _MAGIC = 128, b"DICM"
_MAX_MEMBER_BYTES = 4 << 30


class Source(Protocol):
    """Names of files, and a way to open each."""

    def names(self) -> list[str]:
        """All file names, sorted."""

    def open(self, name: str) -> BinaryIO:
        """Opens one file for reading."""


class FolderSource:
    """The files of a folder and its subfolders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All file names relative to the folder, sorted."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())

    def open(self, name: str) -> BinaryIO:
        """Opens one file for reading."""
        return (self.folder / name).open("rb")


class ZipSource:
    """The members of a zip file. Nothing is extracted, so no member can write outside of a folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def names(self) -> list[str]:
        """All member names, sorted."""
        return sorted(info.filename for info in self.archive.infolist() if not info.is_dir())

    def open(self, name: str) -> BinaryIO:
        """Reads one member into memory; its checksum is compared."""
        size = self.archive.getinfo(name).file_size
        if size > _MAX_MEMBER_BYTES:
            raise InputError(f"{self.archive.filename} holds {name} of {size} bytes, too large; unpack it yourself.")
        return io.BytesIO(self.archive.read(name))


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a folder or a zip file.

    Raises:
        InputError: the zip file, or a member read within the context, is damaged, encrypted or unreadable.
    """
    if path.is_dir():
        yield FolderSource(path)
        return
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.flag_bits & 1 for info in archive.infolist()):
                raise InputError(f"{path} is encrypted; unpack it and give the folder.")
            yield ZipSource(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); export or download it again.") from error


def read_object(source: Source, name: str, headers_only: bool) -> Any | None:
    """Reads one DICOM object as a pydicom Dataset; None where the file is not DICOM."""
    import pydicom

    with source.open(name) as file:
        if file.read(_PREAMBLE + 4)[_PREAMBLE:] != _MAGIC:
            return None
        file.seek(0)
        return pydicom.dcmread(file, stop_before_pixels=headers_only)


_QUIET = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what pydicom and GDCM say about odd but readable headers off the terminal; errors still raise.

    What it changes is the whole process's, so threads take turns.
    """
    with _QUIET:
        yield from _quiet()


def _quiet() -> Iterator[None]:
    import gdcm

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
