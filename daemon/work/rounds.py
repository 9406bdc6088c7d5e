"""One round of planning: changed groups are loaded, the planner is asked, its answer is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.ledger import marks
from daemon.ledger.jobs import drop, open, plan_job, wait_job
from daemon.ledger.products import withdraw
from daemon.ledger.store import Tx, placeholders
from daemon.ledger.world import Clocks, LedgerWorld
from daemon.model.groups import Decision, Group, Overrides, Setting, World
from daemon.plan.planner import plan

AT_ONCE = 100  # groups in one transaction: ingest waits meanwhile


@dataclass(frozen=True)
class Planned:
    """What one round did. due : group that is not quiet yet -> seconds until it may be
    lost : group that waits for files which are gone -> seconds until it goes on without
    more : there may be others to look at"""

    looked_at: int
    changed: int
    due: Mapping[int, float]
    lost: Mapping[int, float] = field(default_factory=dict)

    @property
    def more(self) -> bool:
        return self.changed > 0 or self.looked_at >= AT_ONCE


def round_of_planning(
    tx: Tx,
    setting: Setting,
    clocks: Clocks,
    overrides: Overrides,
    skip: Sequence[int] = (),
    on_open: Callable[[Group, World], None] | None = None,
) -> Planned:
    """Plan touched groups, producers before consumers, and those whose wait has run out.

    skip : groups that are not quiet yet, and known to be so
    on_open : called with each group that is not quiet yet
    """
    due: dict[int, float] = {}
    lost: dict[int, float] = {}
    changed = 0
    seen: set[int] = set(skip)
    world = LedgerWorld(tx, setting, overrides)
    while len(seen) - len(skip) < AT_ONCE:
        row = _next(tx, seen, clocks, setting)
        if row is None:
            break
        seen.add(row["id"])
        if row["rule"] not in setting.rules:
            tx.run(
                "UPDATE frame_group SET touched = 0, waiting_since = NULL, reason = ? WHERE id = ?",
                "its rule is not in the configuration any more",
                row["id"],
            )
            continue
        group = world.load(row, clocks)
        if not group.members:
            tx.run("UPDATE frame_group SET touched = 0 WHERE id = ?", row["id"])
            changed += withdraw(tx, row["id"])
            continue
        decision = plan([group], setting, world)[0]
        changed += _keep(tx, row, decision, clocks, setting)
        if decision.lost and decision.due is not None:
            lost[row["id"]] = decision.due
        if decision.action == "later" and decision.due is not None:
            due[row["id"]] = decision.due
            if on_open is not None:
                on_open(group, world)
    return Planned(len(seen) - len(skip), changed, due, lost)


def _next(tx: Tx, seen: set[int], clocks: Clocks, setting: Setting) -> Any:
    """The next group to look at: of the lowest rank, so that what one makes is known to those that use it."""
    limit = clocks.running - setting.policy.calibration_wait_hours
    return tx.one(
        f"""SELECT * FROM (
            SELECT * FROM frame_group WHERE touched > 0 AND NOT closed
            UNION SELECT * FROM frame_group WHERE waiting_since <= ? AND NOT closed)
        WHERE id NOT IN ({placeholders(list(seen))}) ORDER BY rank, touched, id LIMIT 1""",
        limit if not setting.hurry else 1e12,
        *seen,
    )


# -- what was decided --------------------------------------------------------------------------


def _keep(tx: Tx, row: Any, decision: Decision, clocks: Clocks, setting: Setting) -> int:
    """Write a decision down; returns 1 when it changed any job."""
    if decision.action == "later":
        tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", decision.reason, row["id"])
        return 0
    since = (
        (row["waiting_since"] if row["waiting_since"] is not None else clocks.running)
        if decision.short
        else None
    )
    tx.run(
        """UPDATE frame_group SET touched = 0, settled = 1, reason = ?, better = ?, waiting_since = ?
        WHERE id = ?""",
        decision.reason,
        "; ".join(decision.better),
        since,
        row["id"],
    )
    tx.run("UPDATE demand SET chosen = NULL WHERE group_id = ? AND chosen IS NOT NULL", row["id"])
    for kind, ut in decision.nearest.items():
        sql = "UPDATE demand SET chosen = ? WHERE group_id = ? AND key LIKE ?"
        tx.run(sql, ut.timestamp(), row["id"], f"{kind}:%")
    if row["pool"].startswith("join:"):  # settled now, or one of its frames is out or in again
        for rule in setting.rules.values():
            if rule.join and rule.join.rule == row["rule"]:
                marks.touch_joined(tx, row, rule.join.within_days)
    if decision.action == "plan":
        assert decision.spec is not None
        return plan_job(tx, row["id"], decision, decision.spec)
    if decision.action == "wait":
        changed = wait_job(tx, row, decision, setting)
    else:
        changed = sum(drop(tx, job, "not wanted any more") for job in open(tx, row["id"]))
    if decision.producers:  # what is being made brings a new product soon
        return changed
    return changed + withdraw(tx, row["id"])
