"""What a group makes is made once more because a person asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.ledger import marks
from daemon.ledger.jobs import move
from daemon.ledger.products import remake
from daemon.ledger.store import Reader, Tx, placeholders
from daemon.ledger.targets import Target
from daemon.model.states import JobState

_GROUPS = {
    "group": "SELECT id FROM frame_group WHERE id = ?",
    "job": "SELECT group_id FROM job WHERE id = ?",
    "product": "SELECT group_id FROM product WHERE id = ?",
    "file": """SELECT group_id FROM membership WHERE frame_id =
        (SELECT frame_id FROM content WHERE id = ?) ORDER BY group_id""",
}


def groups_of(db: Reader, target: Target) -> list[int]:
    """The groups that are meant, without closed ones; none of a file whose content is not known yet."""
    if target.kind not in _GROUPS:
        return []
    found = [row[0] for row in db.execute(_GROUPS[target.kind], (target.id,))]
    sql = f"SELECT id FROM frame_group WHERE closed AND id IN ({placeholders(found)})"
    closed = {row[0] for row in db.execute(sql, found)}
    return [group for group in found if group not in closed]


def current_keys(db: Reader, found: Sequence[int]) -> list[str]:
    """Keys of the jobs whose products these groups have now, in their order."""
    sql = "SELECT j.key FROM product p JOIN job j ON j.id = p.job_id WHERE p.current AND p.group_id = ?"
    return [row["key"] for group in found for row in db.execute(sql, (group,))]


def again(tx: Tx, group: int) -> str:
    """Have a group make its product, whatever the reason that it does not by itself; returns what was done,
    in words."""
    row = tx.one("SELECT rule, reason FROM frame_group WHERE id = ?", group)
    assert row is not None
    title = f"group {group}, {row['rule']}"
    failed = tx.one("SELECT * FROM job WHERE group_id = ? AND state = 'failed' ORDER BY id DESC", group)
    marks.touch(tx, group)
    if failed is not None:
        move(tx, failed["id"], failed["state"], JobState.PLANNED, "requeued by a person")
        tx.run("UPDATE job SET deaths = 0, interruptions = 0 WHERE id = ?", failed["id"])
        return f"{title}: tried again"
    going = tx.one("SELECT state FROM job WHERE group_id = ? AND state IN ('running', 'planned')", group)
    if going is not None:
        return f"{title}: {going['state']} already"
    if tx.one("SELECT 1 FROM job WHERE group_id = ? AND state = 'done'", group) is None:
        return f"{title}: looked at again ({row['reason'] or 'not planned yet'})"
    remake(tx, group)
    return f"{title}: made again"
