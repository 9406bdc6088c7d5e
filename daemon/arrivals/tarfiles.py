"""Tar files in a drop folder, as an archive hands out a night: its frames go beside it, into a folder.

    for path in found(folders): unpacked = unpack(path)

What is in a tar file is not believed: only regular members that are called as frames are taken, under their
plain names, none larger than a frame can be, none over another, and not more than there is room for. Paths,
links, devices and permissions in it count for nothing. The folder appears whole, by rename, or not at all: a
tar file that has its folder is not opened again, and neither is ever removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.arrivals.sweep import is_passed_over
from pipeline.errors import NiridError
from pipeline.files.streams import MAX_BYTES
from pipeline.names import is_fits

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_MEMBERS = 100_000
PIECE = 1 << 20
SPARE = 0.05  # of the file system that stays free


class CannotUnpack(NiridError):
    """A tar file of which nothing was taken, and why."""


@dataclass(frozen=True)
class Unpacked:
    """folder : where the frames are; new : False where they were there before
    files : how many; left_out : counts by why, of members that were not taken
    """

    folder: Path
    new: bool
    files: int
    left_out: Counter[str]


def folder_of(path: Path) -> Path:
    """Where the frames of a tar file go: gemini_data for gemini_data.tar."""
    ending = max((e for e in ENDINGS if path.name.lower().endswith(e)), key=len, default="")
    return path.with_name(path.name[: -len(ending)] or f"{path.name}.unpacked")


def found(folders: Iterable[Path]) -> Iterator[Path]:
    """The tar files below these folders, in order; hidden ones and links are passed over."""
    for folder in folders:
        for here, below, names in os.walk(folder):
            below[:] = sorted(name for name in below if not is_passed_over(name))
            for name in sorted(names):
                path = Path(here, name)
                if name.lower().endswith(ENDINGS) and not name.startswith(".") and not path.is_symlink():
                    yield path


def unpack(path: Path) -> Unpacked:
    """The frames in a tar file, in a folder beside it.

    Raises CannotUnpack for one that is none, is cut short, or holds more than there is room for; OSError.
    """
    folder = folder_of(path)
    if folder.is_dir():
        return Unpacked(folder, False, sum(is_fits(name) for name in os.listdir(folder)), Counter())
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    try:
        part.mkdir()
        files, left_out = _taken(path, part)
        os.rename(part, folder)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise CannotUnpack(f"{path}: cannot be unpacked: {str(error) or type(error).__name__}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Unpacked(folder, True, files, left_out)


def _taken(path: Path, part: Path) -> tuple[int, Counter[str]]:
    left_out: Counter[str] = Counter()
    names: set[str] = set()
    with tarfile.open(path, "r:*") as tar:
        for number, member in enumerate(tar):
            if number >= MOST_MEMBERS:
                raise CannotUnpack(f"{path}: holds more than {MOST_MEMBERS} members")
            name = os.path.basename(member.name)
            if why := _why_not(member, name, names):
                left_out[why] += 1
                continue
            _room_for(path, part, member.size)
            names.add(name.lower())
            _write(tar, member, part / name)
    return len(names), left_out


def _why_not(member: tarfile.TarInfo, name: str, names: set[str]) -> str:
    """Why a member is not taken; "" for one that is."""
    if member.isdir():
        return "folder"
    if not member.isreg() or member.issparse():
        return "link or no regular file"
    if not is_fits(name) or not name.isprintable():
        return "name of another kind than *.fits"
    if member.size > MAX_BYTES:
        return f"larger than {MAX_BYTES >> 20} MB"
    if name.lower() in names:
        return "second of its name"
    return ""


def _room_for(path: Path, part: Path, size: int) -> None:
    usage = shutil.disk_usage(part)
    if usage.free - size < SPARE * usage.total:
        raise CannotUnpack(f"{path}: there is no room for what is in it: {usage.free >> 20} MB are free")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # of a regular member
    left = member.size
    with contextlib.closing(source), open(target, "xb") as out:
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise EOFError(f"{member.name} is cut short")
            out.write(piece)
            left -= len(piece)
