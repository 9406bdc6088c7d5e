"""Current products that a newer release or another configuration would make differently.

They stay current: a new release never reduces an archive again by itself. `status` counts them and
`nirid requeue --outdated` has them made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from daemon.ledger.store import Reader
from daemon.model.groups import Overrides, Setting, forced_in
from daemon.model.jobs import REMOVE_FIRST

# Decided by the planner for each group, not by the operator.
PLANNED = {
    REMOVE_FIRST,
    "darkCorrect:do_cal",
    "flatCorrect:do_cal",
    "separateSky:ref_sky",
}


def groups(db: Reader, setting: Setting, overrides: Overrides, night: str | None = None) -> list[int]:
    """Ids of the groups, in order of time."""
    found = _products(db, "AND p.night = ?", night) if night else _products(db)
    return [row["group_id"] for row in found if _differs(row, setting, overrides)]


def count(db: Reader, setting: Setting, overrides: Overrides) -> int:
    return sum(_differs(row, setting, overrides) for row in _products(db))


def is_group(db: Reader, setting: Setting, overrides: Overrides, group: int) -> bool:
    """Whether the product of this group is one of them."""
    return any(_differs(row, setting, overrides) for row in _products(db, "AND p.group_id = ?", group))


def _products(db: Reader, where: str = "", *values: Any) -> Sequence[Any]:
    return db.execute(
        f"""SELECT p.group_id, j.recipe, j.version, j.spec,
        (SELECT f.descriptors FROM job_input i JOIN frame f ON f.id = i.frame_id
         WHERE i.job_id = j.id ORDER BY i.position LIMIT 1) AS descriptors
        FROM product p JOIN job j ON j.id = p.job_id JOIN frame_group g ON g.id = p.group_id
        WHERE p.current AND NOT g.closed {where} ORDER BY g.first_ut, g.id""",
        values,
    ).fetchall()


def _differs(row: Any, setting: Setting, overrides: Overrides) -> bool:
    recipe = setting.recipes.get(row["recipe"])
    spec = json.loads(row["spec"]) if row["spec"] else {}
    if recipe is None or not spec:
        return False
    if row["version"] != recipe.version or spec.get("preset") != setting.preset:
        return True
    wanted = dict(overrides(row["recipe"], json.loads(row["descriptors"] or "{}")))
    used = spec.get("parameters", {})
    planned = PLANNED | forced_in(used).keys()  # what a person accepted is planned at once
    given = {name: value for name, value in used.items() if name not in planned or name in wanted}
    return given != wanted
