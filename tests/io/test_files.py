"""Atomic writing: all or nothing, and errors that say what to do."""

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from renalseg.core.errors import OutputError
from renalseg.io.files import atomic_path, check_writable, split_name, write_json, write_text


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_success_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "case.nii.gz"
    for content in ("first", "second"):
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.name.endswith(".nii.gz")
            assert temporary.name.startswith(".case.tmp-")
            temporary.write_text(content)
        assert path.read_text() == content
    assert [p for p in everything(tmp_path) if p.is_file()] == [path]


def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written_again(tmp_path):
    path = tmp_path / "case [1].nii.gz"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        ours = temporary.name
    dead = ours.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    others = [
        ours,  # of a process that is at work
        dead.replace("case [1]", "case 1"),
        dead.replace("case [1]", "case [1]x"),
        dead.replace(platform.node()[:40], "elsewhere"),
        dead.replace(".nii.gz", ".json"),
    ]
    for name in (dead, *others):
        (tmp_path / name).write_text("half")
    with atomic_path(path) as temporary:
        temporary.write_text("again")
    assert {p.name for p in everything(tmp_path)} == {path.name, *others}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_failure_leaves_the_old_file_and_nothing_else(failure, tmp_path):
    old = tmp_path / "a.txt"
    old.write_text("old")

    def write_half(path: Path) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise failure

    for path in (old, tmp_path / "b" / "c" / "a.txt"):
        with pytest.raises(failure):
            write_half(path)
    assert old.read_text() == "old"
    assert everything(tmp_path) == [old]


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file/out.json could not be written because .* file.*; choose"):
        write_json({}, tmp_path / "file" / "out.json")
    with pytest.raises(OutputError, match="choose another output path"):
        check_writable(tmp_path / "file" / "sub")
    with pytest.raises(OutputError, match="choose another output path"):
        check_writable(tmp_path / "file")
    assert everything(tmp_path) == [tmp_path / "file"]


def test_a_folder_where_the_file_should_go(tmp_path):
    (tmp_path / "out.txt" / "x").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder of that name is in the way"):
        write_text("x", tmp_path / "out.txt")
    assert everything(tmp_path) == [tmp_path / "out.txt", tmp_path / "out.txt" / "x"]


@pytest.mark.parametrize(
    ("code", "part"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EACCES, "permission is denied; choose a folder that you may write to"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_errors_of_the_system(code, part, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        with open(self, "w") as file:
            file.write("half")
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "write_text", fail)
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match=part) as caught:
        write_text("text", tmp_path / "deep" / "a.txt")
    assert str(tmp_path / "deep" / "a.txt") in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(OutputError, match=part):
        check_writable(tmp_path / "deep" / "folder")
    assert everything(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device():
    with pytest.raises(OutputError, match="the disk is full"), atomic_path(Path("unused.txt").absolute()):
        Path("/dev/full").write_text("x")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_proc_cannot_be_written():
    with pytest.raises(OutputError):
        check_writable(Path("/proc/renalseg"))


def test_check_writable_leaves_only_the_folder(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert everything(tmp_path) == [tmp_path / "a", tmp_path / "a" / "b"]


def test_too_long_a_name(tmp_path):
    with pytest.raises(OutputError, match="choose a shorter output path"):
        write_text("x", tmp_path / ("n" * 300 + ".txt"))
    assert everything(tmp_path) == []


def test_json_is_utf8_with_a_newline(tmp_path):
    write_json({"name": "Nière", "value": 1.5}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {"name": "Nière", "value": 1.5}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.b.nii.gz", ("a.b", ".nii.gz")),
        ("A.NII.GZ", ("A", ".NII.GZ")),
        ("a.nii", ("a", ".nii")),
        ("folder", ("folder", "")),
        (".nii.gz", (".nii", ".gz")),
    ],
)
def test_split_name(name, parts):
    assert split_name(name) == parts
