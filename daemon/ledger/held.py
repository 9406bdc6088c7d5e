"""Which masters are held back: made, current, and not used for others until a person has looked.

`daemon.ledger.guarding` holds them back.
"""

from __future__ import annotations

import os
from typing import Any

from daemon.ledger import decisions
from daemon.ledger.store import Reader, Tx
from daemon.model.decisions import ACCEPT, HOLD, REJECT, of_product

HELD = f"""FROM decision d JOIN job j ON j.key = substr(d.subject, 9)
    JOIN product p ON p.job_id = j.id AND p.current
    WHERE d.action = '{HOLD}' AND NOT EXISTS (SELECT 1 FROM decision l
        WHERE l.subject = d.subject AND l.id > d.id AND l.action IN ('{ACCEPT}', '{REJECT}'))"""


def is_held(tx: Tx, key: str) -> str:
    """Why the product of a job is held back; "" when it is not."""
    row = decisions.standing(tx, of_product(key))
    return str(row["reason"]) if row is not None and row["action"] == HOLD else ""


def of_key(tx: Tx, key: str) -> list[dict[str, Any]]:
    """Held masters of a calibration key: key (of the job), makes (Candidate as JSON), name, reason."""
    sql = f"SELECT j.key, j.makes, p.name, d.reason {HELD} AND j.makes_key = ? ORDER BY j.ut, j.id"
    return [dict(row) for row in tx.rows(sql, key)]


def everything(db: Reader) -> list[dict[str, Any]]:
    """All of them: name, night, path, group, since (seconds), reason; the latest first."""
    rows = db.execute(
        f"SELECT p.name, p.night, p.path, p.group_id, d.at, d.reason {HELD} ORDER BY d.at DESC, d.id DESC"
    )
    return [
        {"name": r["name"], "night": r["night"], "path": os.fsdecode(r["path"]), "group": r["group_id"]}
        | {"since": r["at"], "reason": r["reason"]}
        for r in rows
    ]
