"""Writing files so that a reader never meets half of one, and errors that say what to do."""

import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from renalseg.core.errors import OutputError

HEADER_BYTES = 2**16
"""More than any text header of voxels in another file has."""

DOUBLE_SUFFIXES = (".nii.gz", ".tar.gz")

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another output folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another output folder"),
    errno.EACCES: ("permission is denied", "choose a folder that you may write to"),
    errno.EPERM: ("permission is denied", "choose a folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a folder that you may write to"),
    errno.ENOENT: ("no folder can be made there", "choose another output path"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another output path"),
    errno.EEXIST: ("a file stands where a folder is needed", "choose another output path"),
    errno.EISDIR: ("a folder of that name is in the way", "choose another output path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter output path"),
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of ``path`` that becomes ``path`` on success and is deleted on any failure.

    The temporary name keeps the suffix (``.nii.gz`` too), so that writers choose the right format. Missing parent
    folders are created, and removed again after a failure. What a killed process of this machine left of the same file
    is deleted first.

    Args:
        path: the file to be written; an existing one is replaced only on success.

    Raises:
        OutputError: the folder cannot be created, or writing or renaming failed.
    """
    created: list[Path] = []
    temporary: Path | None = None
    try:
        _make_folders(path.parent, created)
        _remove_remains(path)
        temporary = _temporary_name(path)
        yield temporary
        os.replace(temporary, path)
        created.clear()
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _remove_folders(created)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path, without: Path | None = None) -> str:
    """A hash of place, names, sizes and times of change of a file, or of all files in a folder.

    Content is not read, but for headers that name files of voxels, which then count too. So what was moved, copied or
    touched counts as another input.

    Args:
        path: the file or folder.
        without: a folder inside ``path`` whose files do not count; any other changes nothing.

    Raises:
        OSError: the file or folder cannot be looked at.
    """
    place = path.resolve()
    if place.is_dir():
        left_out = None if without is None else without.resolve()
        inside = left_out is not None and place in left_out.parents
        files = [f for f in place.rglob("*") if not inside or left_out not in f.parents]
    else:
        files = [place, *(_voxel_files(place) if place.suffix.lower() in (".mhd", ".nhdr") else ())]
    stats = sorted((f.as_posix(), f.stat()) for f in files if f.is_file())
    known = [place.as_posix(), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _voxel_files(header: Path) -> set[Path]:
    """Files that a MetaImage or NRRD header names: by name, by path, by a pattern, or in a list."""
    with header.open("rb") as stream:
        text = stream.read(HEADER_BYTES).decode("latin-1")
    found, lines = {f for f in header.parent.iterdir() if f.name in text}, text.splitlines()
    for number, line in enumerate(lines):
        if told := re.match(r"(?:ElementDataFile\s*=|data ?file:)\s*(.+)", line, re.IGNORECASE):
            names = lines[number + 1 :] if told[1].startswith("LIST") else [told[1]]
            for name in (name.strip() for name in names):
                with suppress(OSError, ValueError, NotImplementedError):  # voxels, not a name
                    pattern, is_one = re.sub(r"%\d*d", "*", name.split()[0]), (header.parent / name).is_file()
                    found |= {header.parent / name} if is_one else set(header.parent.glob(pattern))
            break
    return found - {header}


def write_text(text: str, path: Path) -> None:
    """Writes UTF-8 text, atomically.

    Raises:
        OutputError: the file could not be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(data: Any, path: Path) -> None:
    """Writes indented JSON with a final newline, atomically.

    Raises:
        OutputError: the file could not be written.
    """
    write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", path)


def check_writable(folder: Path) -> None:
    """Creates ``folder`` where needed and proves, with a file of 4 KiB, that it can be written to.

    The probe is deleted; folders created here are removed again where the proof fails.

    Raises:
        OutputError: the folder cannot be created or written to.
    """
    created: list[Path] = []
    probe: Path | None = None
    try:
        _make_folders(folder, created)
        probe = _temporary_name(folder / "probe.bin")
        probe.write_bytes(bytes(4096))
        created.clear()
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        if probe is not None:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        _remove_folders(created)


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """``check_writable`` for the body of a ``with``; folders that it created and that end up empty are removed again.

    Raises:
        OutputError: as ``check_writable``.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    check_writable(folder)
    try:
        yield folder
    finally:
        _remove_folders(missing[::-1])


def split_name(name: str) -> tuple[str, str]:
    """Splits a file name into stem and suffix; ``.nii.gz`` counts as one suffix, whatever its case."""
    for suffix in DOUBLE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    path = Path(name)
    return path.stem, path.suffix


def _temporary_name(path: Path) -> Path:
    beginning, suffix = _temporary_beginning(path)
    return path.with_name(f"{beginning}{os.getpid()}-{secrets.token_hex(3)}{suffix}")


def _temporary_beginning(path: Path) -> tuple[str, str]:
    """What all temporary names of a file on this machine begin and end with; between them stands the process."""
    stem, suffix = split_name(path.name)
    return f".{stem[:100]}.tmp-{platform.node()[:40]}-", suffix


def _remove_remains(path: Path) -> None:
    """Deletes temporary files of ``path`` whose process is gone: it was killed, and had no time to tidy up."""
    beginning, suffix = _temporary_beginning(path)
    remains = list(path.parent.glob(f"{glob.escape(beginning)}*{glob.escape(suffix)}"))
    if not remains:
        return
    import psutil  # here, since nearly no program needs it

    for other in remains:
        process, _, drawn = other.name[len(beginning) : len(other.name) - len(suffix)].partition("-")
        if process.isdecimal() and len(drawn) == 6 and not psutil.pid_exists(int(process)):
            with suppress(OSError):
                other.unlink()


def _make_folders(folder: Path, created: list[Path]) -> None:
    """Creates ``folder`` with its parents; adds to ``created``, outermost first, what did not exist before."""
    missing = []
    for candidate in (folder, *folder.parents):
        if candidate.is_dir():
            break
        missing.append(candidate)
    for candidate in reversed(missing):
        try:
            candidate.mkdir()
        except FileExistsError:  # another process was faster; or a file is in the way
            if not candidate.is_dir():
                raise
        else:
            created.append(candidate)


def _remove_folders(folders: list[Path]) -> None:
    """Removes folders, innermost first, as far as they are empty."""
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def output_error(path: Path, error: OSError) -> OutputError:
    """The error for a failed write of ``path``: the reason and what to do about it, in one sentence."""
    reason, advice = _REASONS.get(error.errno or 0, (error.strerror or str(error), "choose another output path"))
    return OutputError(f"{path} could not be written because {reason}; {advice}.")
