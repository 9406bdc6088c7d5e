"""Compares the drop folders and the products on disk with the ledger: is everything accounted for?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from daemon.arrivals.sweep import Index, is_file, is_passed_over
from daemon.ledger import questions
from daemon.ledger.publications import is_night
from daemon.ledger.store import Reader
from daemon.model.states import FileState
from pipeline.errors import NiridError
from pipeline.files.structure import hash_file, read_structure

WATCHED = (FileState.SEEN, FileState.INCOMPLETE)  # in the ledger, without a verdict yet
HOUSEHOLD = (".staging", ".nirid", "intermediate", "quicklook")  # folders whose files are no products


def audit(
    db: Reader, drop_folders: Sequence[Path], product_folder: Path, *, deep: bool = False
) -> dict[str, Any]:
    """Every file on disk in exactly one known state, every product whole?

    deep : also hash every raw file and every product again
    Answers {"files": {"total", "by_state"}, "unaccounted": [{"path", "why"}], "products": {"total",
    "broken": [{"path", "why"}]}, "jobs": {"by_state"}}; files and states are those on disk.
    """
    by_state, unaccounted, total = _files(db, [str(folder) for folder in drop_folders], deep)
    products = questions.products(db, current=False)
    broken = [{"path": p["path"], "why": why} for p in products if (why := _broken(p, deep))]
    known = {os.path.realpath(product["path"]) for product in products} | questions.being_removed(db)
    unaccounted += [
        {"path": str(path), "why": "a product that the ledger does not know"}
        for path in product_files(product_folder)
        if os.path.realpath(path) not in known
    ]
    return {
        "files": {"total": total, "by_state": dict(sorted(by_state.items()))},
        "unaccounted": unaccounted,
        "products": {"total": len(products), "broken": broken},
        "jobs": {"by_state": questions.counts(db)["jobs"]},
    }


def is_clean(answer: dict[str, Any]) -> bool:
    return not answer["unaccounted"] and not answer["products"]["broken"]


def _files(db: Reader, roots: Sequence[str], deep: bool) -> tuple[Counter[str], list[dict[str, str]], int]:
    index = Index()
    index.load(questions.settled_files(db))
    sweep = index.sweep(roots)
    records = {record["path"]: record for record in questions.files_on_record(db)}
    unaccounted = [{"path": path, "why": f"cannot be read: {why}"} for path, why in sweep.errors.items()]
    unaccounted += [{"path": path, "why": why} for path, why in sweep.suspect.items()]
    for path, _ in sweep.candidates:
        record = records.get(path)
        if record is None:
            unaccounted.append({"path": path, "why": "not in the ledger yet"})
        elif record["state"] not in WATCHED:
            unaccounted.append({"path": path, "why": f"changed since it was found {record['state']}"})
    strangers = {item["path"] for item in unaccounted}
    here = [r for r in records.values() if r["path"] not in strangers and _under(r["path"], roots)]
    here = [r for r in here if is_file(r["path"])]
    if deep:
        unaccounted += [{"path": r["path"], "why": why} for r in here if (why := _altered(r))]
    return Counter(r["state"] for r in here), unaccounted, sweep.files


def _altered(record: dict[str, Any]) -> str:
    """Why a file is no longer what the ledger has; "" when it is."""
    if record["sha256"] is None:
        return ""
    try:
        found = hash_file(record["path"], follow=False)
    except (OSError, NiridError) as error:
        return f"cannot be read: {error}"
    return "" if found == record["sha256"] else "its bytes have changed, though its size and times have not"


def _broken(product: dict[str, Any], deep: bool) -> str:
    """Why a product is not whole; "" when it is."""
    path = Path(product["path"])
    try:
        if deep:
            from pipeline.files.write import verify_product

            verify_product(path, product["sha256"])
        else:
            read_structure(path)
    except FileNotFoundError:
        return "not on disk"
    except (OSError, NiridError) as error:
        return str(error)
    if product["current"] and not path.with_suffix(".png").exists():
        return "its preview is not on disk"
    return ""


def product_files(folder: Path) -> Iterator[Path]:
    """Every file that is a product, or was one. OSError when a folder of ours cannot be listed."""

    def failed(error: OSError) -> None:
        below = Path(os.fsdecode(error.filename)).relative_to(folder).parts
        not_ours = isinstance(error, PermissionError) and below and not is_night(below[0])
        if not isinstance(error, FileNotFoundError) and not not_ours:
            raise error

    for root, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if name not in HOUSEHOLD and not is_passed_over(name)]
        yield from (Path(root, name) for name in names if name.endswith(".fits"))


def _under(path: str, roots: Sequence[str]) -> bool:
    return any(path.startswith(root.rstrip("/") + "/") for root in roots)
