"""Asking and filling a ledger."""

import os

from daemon.ledger import files, questions
from tests.night import setting


def take(ledger, *records):
    for record in records:
        ledger.write(lambda tx, r=record: files.record(tx, r, setting()))


def states(ledger):
    with ledger.read() as db:
        return {os.path.basename(r["path"]): r["state"] for r in questions.files_on_record(db)}


def rows(ledger, sql):
    with ledger.read() as db:
        return [tuple(row) for row in db.execute(sql)]
