"""The files of a publication: the new one becomes visible by rename, the old ones are kept.

`move_files` may be called again after any interruption, with the plan that is in the ledger.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from daemon.model.publication import DAMAGED, PublishPlan, StagedFileGone
from pipeline.files.disk import copy_whole, hash_of, link_or_copy, make_folder, sync, there


def move_files(plan: PublishPlan, at: Callable[[str], None] = lambda point: None) -> None:
    """Make the new file visible and keep the old ones. May be called again after any interruption.

    at : called with the name of each point, for tests that stop there
    """
    if plan.withdrawn:
        for old in plan.old:
            withdraw(Path(old.path), Path(old.kept), plan.sha256)
            if plan.result.get("lost"):
                _put_aside(Path(old.path), Path(old.kept))
        at("withdrawn")
        return
    final, staged = Path(plan.final), Path(plan.staged)
    if not there(staged) and not _is_published(plan):
        raise StagedFileGone(errno.ENOENT, "the staged product is gone", plan.staged)
    make_folder(final.parent)
    if there(staged):
        sync(staged.parent)  # link first: the product must never be without a name
        for old in plan.old:
            _keep(Path(old.path), Path(old.kept), old.sha256)
            at("kept")
        preview = staged.with_suffix(".png")
        if there(preview):
            _rename(preview, final.with_suffix(".png"))
            at("preview")
        _rename(staged, final)
        at("renamed")
    for old in plan.old:
        if old.path != plan.final:
            Path(old.path).unlink(missing_ok=True)
            Path(old.path).with_suffix(".png").unlink(missing_ok=True)
            at("unlinked")
    for folder in dict.fromkeys([final.parent, *(Path(old.path).parent for old in plan.old)]):
        sync(folder)
    at("synced")


def _rename(source: Path, target: Path) -> None:
    """Where a folder below the products lies on another file system than its neighbours, by a copy."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_whole(source, target)
        source.unlink()


def _keep(old: Path, kept: Path, sha256: str = "") -> None:
    """Hard link, so that the product is at no time without its file; a copy where links are refused."""
    make_folder(kept.parent)
    if not there(old) or there(kept):  # kept by an earlier try: nobody else takes that name
        return
    if sha256 and hash_of(old) != sha256:
        _put_aside(old, kept)
        return
    if old.suffix == ".fits":
        _keep(old.with_suffix(".png"), kept.with_suffix(".png"))
    link_or_copy(old, kept)
    sync(kept.parent)


def withdraw(old: Path, kept: Path, sha256: str) -> None:
    """Move a withdrawn product to superseded/. May be called again.

    sha256 : of the product; what else may lie at its path by now stays
    """
    if hash_of(old) == sha256:
        _keep(old, kept)
        old.unlink()
        old.with_suffix(".png").unlink(missing_ok=True)
        sync(old.parent)


def _put_aside(old: Path, kept: Path) -> None:
    """A file that is not the product any more is kept for a person, under a name that no product has."""
    if there(old):
        make_folder(kept.parent)
        _rename(old, kept.with_name(f"{kept.name}{DAMAGED}"))
        old.with_suffix(".png").unlink(missing_ok=True)
        sync(kept.parent)
        sync(old.parent)


def _is_published(plan: PublishPlan) -> bool:
    """True when the rename was done before an interruption."""
    return hash_of(Path(plan.final)) == plan.sha256
