"""Why a product was made again: what its job was given, beside what the job before it was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from daemon.ledger import answers, contents, decisions, events
from daemon.ledger.decisions import standing
from daemon.ledger.store import Reader, Tx
from daemon.model.decisions import in_words, of_frame
from daemon.model.records import JobRecord

Spec = Mapping[str, Any]  # a JobSpec as JSON
SHOWN = 4  # names in one line


def why_again(tx: Tx, job: JobRecord) -> list[str]:
    """What is different from the product before, in words; [] of a first one, or when nobody knows."""
    before = answers.job_before(tx.reader, job) if job.spec else None
    if before is None:
        return []
    old, new = before.spec, job.spec
    found = [*_frames(tx, old, new), *_calibrations(old, new), *_settings(old, new)]
    if job.remake != before.remake:
        found.append(_asked(tx.reader, before))
    return found


def _frames(tx: Tx, old: Spec, new: Spec) -> Iterator[str]:
    was, now = ({i["data_sha"]: i for i in spec["inputs"]} for spec in (old, new))
    if came := [i["name"] for sha, i in now.items() if sha not in was]:
        yield f"with {_names(came)}, which came later"
    for reason, names in _gone(tx, [i for sha, i in was.items() if sha not in now]).items():
        yield f"without {_names(names)}" + (f": {reason}" if reason else "")
    if changed := [i["name"] for sha, i in now.items() if sha in was and i["facts"] != was[sha]["facts"]]:
        yield f"the header of {_names(changed)} says something else now"


def _gone(tx: Tx, inputs: Sequence[Spec]) -> dict[str, list[str]]:
    """{why: names} of frames that are not used any more."""
    found: dict[str, list[str]] = {}
    for item in inputs:
        frame = contents.frame_of_pixels(tx.reader, item["data_sha"])
        decision = standing(tx, of_frame(frame.label, item["data_sha"])) if frame else None
        why = in_words(decision) if decision else frame.reason if frame and frame.state != "ready" else ""
        found.setdefault(why, []).append(item["name"])
    return found


def _calibrations(old: Spec, new: Spec) -> Iterator[str]:
    roles = dict.fromkeys(c["role"] for spec in (new, old) for c in spec.get("calibrations", ()))
    for role in roles:
        was, now = (
            {c["key"]: c["name"] for c in spec["calibrations"] if c["role"] == role} for spec in (old, new)
        )
        came = [name for key, name in now.items() if key not in was]
        gone = [name for key, name in was.items() if key not in now]
        again = [name for name in came if name in gone]
        came, gone = [n for n in came if n not in again], [n for n in gone if n not in again]
        if again:
            yield f"{role} {_names(again)} was made again itself"
        if came:
            yield f"with {role} {_names(came)}" + (
                f" instead of {_names(gone)}" if gone else ", which came later"
            )
        elif gone:
            yield f"without {role} {_names(gone)}"


def _settings(old: Spec, new: Spec) -> Iterator[str]:
    if old["recipe_version"] != new["recipe_version"]:
        yield f"version {new['recipe_version']} of the recipe instead of {old['recipe_version']}"
    if old.get("preset") != new.get("preset"):
        yield f"preset {new.get('preset')} instead of {old.get('preset')}"
    was, now = old.get("parameters", {}), new.get("parameters", {})
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            values = (spec.get(name, "what it is by default") for spec in (now, was))
            yield "{} is {}, was {}".format(name, *values)


def _asked(db: Reader, before: JobRecord) -> str:
    """Nothing it is made of is new: a person wanted it, or the file was lost."""
    asked = decisions.asked_again(db, before.key)
    if asked is not None:
        return f"asked for by {asked['user']}" + (f": {asked['reason']}" if asked["reason"] else "")
    lost = events.last_of_job(db, before.id, "product_lost", "product_withdrawn")
    why = str(lost.fields.get("reason", "")) if lost else ""
    return why or "the one before was no longer there"


def _names(names: Sequence[str]) -> str:
    few = " ".join(name.removesuffix(".fits") for name in names[:SHOWN])
    return few if len(names) <= SHOWN else f"{few} and {len(names) - SHOWN} more"
