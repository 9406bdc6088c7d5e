"""Measures in the ledger: one table of numbers about frames, products and looks, each with its error.

    record(tx, "product", id, at, "f6 K(prime)", of_image(quality))    # in the transaction that publishes it
    trend(db, "fwhm", key="f6 K(prime)", since=at)                     # in order of time, by index
    of(db, "frame", id)                                                # {name: Measure}

`of` is product, look or frame, and `number` the row of that table. A frame has the measures of its first
look until a product that holds it says better.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.ledger.store import Reader, Tx, placeholders
from daemon.model.measures import UNITS, Measure, Point, of_frame, of_image, setting_of
from daemon.model.names import FIRST
from pipeline.association import CalKind
from pipeline.headers.descriptors import Descriptors


def record(tx: Tx, of: str, number: int, at: float, key: str, measures: Iterable[Measure]) -> None:
    """Keep these measures; one of the same name is replaced. at : of the exposure, seconds since the epoch"""
    for one in measures:
        tx.run(
            "INSERT OR REPLACE INTO measure VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            of, number, one.name, one.value, one.error, one.unit, key, at,
        )  # fmt: skip


def record_product(tx: Tx, product: int, job: int, quality: Mapping[str, Any], makes: str, at: float) -> None:
    """Keep what a product says of itself, and of each frame in it.

    makes : the key of the calibration that it is, "" of science; at : of its latest input
    """
    frames = tx.rows(
        """SELECT f.id, f.name, f.ut, f.descriptors FROM job_input i JOIN frame f ON f.id = i.frame_id
        WHERE i.job_id = ? ORDER BY i.position""",
        job,
    )
    image = not makes or makes.startswith(f"{CalKind.ZERO_POINT}:")  # that of a standard is an image
    key = _setting(frames) if image else makes
    record(tx, "product", product, at, key, of_image(quality))
    rows = {str(row.get("NAME", "")).strip(): row for row in quality.get("frames") or ()}
    for frame in frames:
        row = rows.get(frame["name"])
        if row is not None and frame["ut"] is not None:
            record(tx, "frame", frame["id"], frame["ut"], key, of_frame(row))


def record_look(tx: Tx, look: int, quality: Mapping[str, Any]) -> None:
    """Keep what a first look or a running stack says; a first look speaks for its frame."""
    row = tx.one("SELECT kind, frames, began, group_id FROM look WHERE id = ?", look)
    names = json.loads(row["frames"]) if row else []
    if row is None or not names:
        return
    frames = tx.rows(
        """SELECT f.id, f.ut, f.descriptors FROM membership m JOIN frame f ON f.id = m.frame_id
        WHERE m.group_id = ? AND f.name = ?""",
        row["group_id"],
        names[-1],
    )
    at = frames[0]["ut"] if frames and frames[0]["ut"] is not None else row["began"]
    key, measures = _setting(frames), list(of_image(quality))
    record(tx, "look", look, at, key, measures)
    if frames and row["kind"] == FIRST:
        record(tx, "frame", frames[0]["id"], at, key, measures)


def _setting(frames: Sequence[Any]) -> str:
    return setting_of(Descriptors.from_json(json.loads(frames[0]["descriptors"]))) if frames else ""


def of(db: Reader, subject: str, number: int) -> dict[str, Measure]:
    """Everything that is known of one subject, by name."""
    rows = db.execute(
        "SELECT name, value, error, unit FROM measure WHERE subject = ? AND number = ?", (subject, number)
    )
    return {row[0]: Measure(*row) for row in rows}


def of_frames(db: Reader, begin: float, end: float) -> dict[int, dict[str, Measure]]:
    """Of every frame taken between two times: {number of the frame: {name: Measure}}."""
    return _by_frame(
        db.execute(
            f"""SELECT {_OF_A_FRAME} FROM frame f CROSS JOIN measure m
            ON m.subject = 'frame' AND m.number = f.id WHERE f.ut >= ? AND f.ut < ?""",
            (begin, end),
        )
    )


@dataclass(frozen=True)
class FrameRow:
    """One frame with its measures. at : seconds since the epoch; natural : AOSEEING, arcsec"""

    name: str
    at: float
    airmass: float | None
    natural: float | None
    measures: Mapping[str, Measure]


def of_groups(
    db: Reader, groups: Sequence[int], names: Sequence[str]
) -> dict[int, tuple[Descriptors, list[FrameRow]]]:
    """{group: (descriptors of its last frame, its usable frames in order of time)}, of those that have any.

    names : of the measures that are wanted
    """
    columns = "".join(f", m{n}.value, m{n}.error" for n in range(len(names)))
    joined = " ".join(
        f"LEFT JOIN measure m{n} ON m{n}.subject = 'frame' AND m{n}.number = f.id AND m{n}.name = ?"
        for n in range(len(names))
    )
    rows = db.execute(  # a row for each frame: one for each measure would be four times the work
        f"""SELECT s.group_id, f.id, f.name, f.ut, json_extract(f.descriptors, '$.airmass'),
            json_extract(f.descriptors, '$.ao_seeing') {columns}
        FROM membership s CROSS JOIN frame f ON f.id = s.frame_id {joined}
        WHERE s.group_id IN ({placeholders(groups)}) AND f.usable AND f.ut IS NOT NULL ORDER BY f.ut, f.id""",
        (*names, *groups),
    ).fetchall()
    last = {row[0]: row[1] for row in rows}
    facts = _described(db, tuple(last.values()))
    found = {group: (facts[frame], list[FrameRow]()) for group, frame in last.items()}
    units = [UNITS.get(name, "") for name in names]
    for group, _, name, at, airmass, natural, *told in rows:
        measured = {
            one: Measure(one, value, error, unit)
            for one, unit, value, error in zip(names, units, told[::2], told[1::2], strict=True)
            if value is not None
        }
        found[group][1].append(FrameRow(name, at, airmass, natural, measured))
    return found


def frames_of_group(db: Reader, group: int) -> list[tuple[str, float, Descriptors, dict[str, Measure]]]:
    """(name, time, descriptors, measures) of the usable frames of a group, in order of time."""
    frames = db.execute(
        """SELECT f.id, f.name, f.ut, f.descriptors FROM membership m JOIN frame f ON f.id = m.frame_id
        WHERE m.group_id = ? AND f.usable AND f.ut IS NOT NULL ORDER BY f.ut, f.id""",
        (group,),
    ).fetchall()
    measured = _by_frame(
        db.execute(
            f"""SELECT {_OF_A_FRAME} FROM membership s CROSS JOIN measure m
            ON m.subject = 'frame' AND m.number = s.frame_id WHERE s.group_id = ?""",
            (group,),
        )
    )
    return [
        (name, ut, Descriptors.from_json(json.loads(facts)), measured.get(number, {}))
        for number, name, ut, facts in frames
    ]


def _described(db: Reader, frames: Sequence[int]) -> dict[int, Descriptors]:
    sql = f"SELECT id, descriptors FROM frame WHERE id IN ({placeholders(frames)})"
    return {row[0]: Descriptors.from_json(json.loads(row[1])) for row in db.execute(sql, tuple(frames))}


# CROSS JOIN keeps the order: without it SQLite may begin with the measures of all frames there ever were.
_OF_A_FRAME = "m.number, m.name, m.value, m.error, m.unit"


def _by_frame(rows: Iterable[Any]) -> dict[int, dict[str, Measure]]:
    found: dict[int, dict[str, Measure]] = {}
    for number, *values in rows:
        found.setdefault(number, {})[values[0]] = Measure(*values)
    return found


def trend(
    db: Reader, name: str, *, key: str | None = None, since: float = 0.0, most: int = 5000
) -> list[Point]:
    """One measure in order of time, the latest `most`; key : one setting only.

    Without first looks, which are told as their frames.
    """
    rows = db.execute(
        f"""SELECT subject, number, key, at, name, value, error, unit FROM measure WHERE name = ? AND at >= ?
        AND NOT (subject = 'look' AND number IN (SELECT id FROM look WHERE kind = ?))
        {"AND key = ?" if key is not None else ""} ORDER BY at DESC, subject, number LIMIT ?""",
        (name, since, FIRST, *([key] if key is not None else []), most),
    ).fetchall()
    return [Point(of, number, key, at, Measure(*measure)) for of, number, key, at, *measure in reversed(rows)]


def names(db: Reader) -> list[str]:
    """Every measure that something has."""
    return _different(db, "name", "1")


def keys(db: Reader, name: str) -> list[str]:
    """The settings in which a measure is known."""
    return _different(db, "key", "name = ?", name)


def _different(db: Reader, column: str, where: str, *values: Any) -> list[str]:
    """The different values of a column, each found from the one before it by index: there are few of them
    in very many rows, which DISTINCT would read all."""
    rows = db.execute(
        f"""WITH RECURSIVE next (value) AS (SELECT MIN({column}) FROM measure WHERE {where}
        UNION ALL SELECT (SELECT MIN({column}) FROM measure WHERE {where} AND {column} > next.value)
        FROM next WHERE next.value IS NOT NULL) SELECT value FROM next WHERE value IS NOT NULL""",
        (*values, *values),
    )
    return [row[0] for row in rows]
