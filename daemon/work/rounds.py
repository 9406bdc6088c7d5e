"""One round of planning: changed groups are loaded, the planner is asked, its answer is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.ledger import planning
from daemon.ledger.store import Tx
from daemon.ledger.world import Clocks, LedgerWorld
from daemon.model.groups import Group, Overrides, Setting, World
from daemon.plan import planner

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
    until = waited_until(setting, clocks.running)
    while len(seen) - len(skip) < AT_ONCE and (found := planning.next_group(tx, seen, until)):
        number, rule = found
        seen.add(number)
        if rule not in setting.rules:
            planning.leave(tx, number, "its rule is not in the configuration any more")
            continue
        group = world.group(number, clocks)
        if not group.members:
            changed += planning.is_empty(tx, number)
            continue
        decision = planner.plan([group], setting, world)[0]
        changed += planning.keep(tx, number, decision, clocks.running, setting)
        if decision.lost and decision.due is not None:
            lost[number] = decision.due
        if decision.action == "later" and decision.due is not None:
            due[number] = decision.due
            if on_open is not None:
                on_open(group, world)
    return Planned(len(seen) - len(skip), changed, due, lost)


def waited_until(setting: Setting, running: float) -> float:
    """Groups that wait for a calibration since this hour of the running clock have waited long enough."""
    return 1e12 if setting.batch else running - setting.policy.calibration_wait_hours
