"""A daemon's folders, and decisions in them."""

import shutil
from contextlib import closing
from pathlib import Path

from daemon import app
from daemon.config import load
from daemon.ledger import contents as ledger_contents
from daemon.ledger.store import connect_readonly
from daemon.people.requests import submit
from daemon.upkeep import backup

DARKS = [f"N20160102S{n:04d}.fits" for n in (423, 424, 425)]


def made(folder, night):
    drop = folder / "drop"
    drop.mkdir()
    for name in DARKS[:2]:
        shutil.copy(night / name, drop)
    settings = load.load(
        None, {n: str(folder / n.split(".")[0]) for n in ("state.folder", "products.folder")}
    )
    settings = load.load(None, {"watch.folders": [str(drop)], **given(settings)})
    app.rebuild_offline(settings)
    backup.backup(settings.database, folder / "copy.db")
    return settings


def given(settings):
    return {"state.folder": str(settings.state_folder), "products.folder": str(settings.product_folder)}


def decide(settings, *decisions):
    for action, target in decisions:
        submit(settings.state_folder, {"action": action, "target": target, "reason": "looked again"})
    daemon = app.build(settings, batch=True)
    daemon.main_loop.requests.apply()
    daemon.close()


def states(settings):
    with closing(connect_readonly(settings.database)) as db:
        return {Path(row["paths"][0]).name: row["state"] for row in ledger_contents.everything(db)}


def contents(folder):
    return {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ("lock", "daemon.json")
    }


def folder(path):
    path.unlink()
    path.mkdir()
