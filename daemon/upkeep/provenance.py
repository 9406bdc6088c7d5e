"""A product file, read for what it says of itself: enough to know which job made it, of what, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.engine.software import CARDS
from daemon.model.jobs import QUALITY, REMOVE_FIRST
from daemon.model.names import SUPERSEDED, version_of
from pipeline.association import CalKind
from pipeline.errors import DamagedFile
from pipeline.headers.descriptors import Descriptors, describe
from pipeline.headers.merged import merge


@dataclass(frozen=True)
class ProductOnDisk:
    """What a product says of itself.

    key, group : JOBKEY and GROUPID; input_key : of all inputs, by pixels and facts
    inputs : (name, SHA-256 as delivered), in order; calibrations : (name, SHA-256, role)
    by_path : the same of masks that were named by path among the parameters
    made_with : {name: version} of what made it, as far as it says so
    parameters : those that were not the recipe's own
    written : seconds since the epoch; ut : of its latest input
    superseded : it lies among those that were replaced
    """

    path: Path
    name: str
    night: str
    superseded: bool
    sha256: str
    key: str
    group: str
    input_key: str
    recipe: str
    version: int
    preset: str
    inputs: tuple[tuple[str, str], ...]
    calibrations: tuple[tuple[str, str, str], ...]
    by_path: tuple[tuple[str, str, str], ...]
    made_with: Mapping[str, str]
    parameters: Mapping[str, Any]
    notes: tuple[str, ...]
    quality: Mapping[str, Any]
    descriptors: Descriptors
    time_stamp: str
    written: float
    ut: float


def read(path: Path, products: Path, *, whole: bool = True) -> ProductOnDisk:
    """Raises DamagedFile when it is not whole, or does not say which job made it; OSError.

    whole : False to read also what does not hold to its checksums; then `sha256` is ""
    """
    try:
        return _read(path, products, whole)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{path}: what it says of itself makes no sense: {error}") from error


def _read(path: Path, products: Path, whole: bool) -> ProductOnDisk:
    from pipeline.files.read import read_measures, read_members, read_notes, read_provenance
    from pipeline.files.structure import read_structure
    from pipeline.files.write import verify_product

    facts = verify_product(path) if whole else read_structure(path)
    cards = facts.phu
    missing = [k for k in ("JOBKEY", "GROUPID", "RECIPE", "VERSION", "PRESET") if not cards.get(k)]
    if missing:
        raise DamagedFile(f"{path}: its header has no {', '.join(missing)}: it was not made by the daemon")
    provenance, history = read_provenance(path)
    relative = path.relative_to(products)
    superseded = SUPERSEDED in relative.parts
    kept = version_of(path) if superseded else None
    recipe, preset = str(cards["RECIPE"]), str(cards["PRESET"])
    image = facts.hdus[facts.image].cards if facts.image else {}
    merged, stamp = merge(cards, image), str(cards.get("DATE", ""))
    return ProductOnDisk(
        path=path,
        name=kept[0] if kept else path.stem,
        night=relative.parts[0],
        superseded=superseded,
        sha256=facts.file_sha,
        key=str(cards["JOBKEY"]),
        group=str(cards["GROUPID"]),
        input_key=str(cards.get("INPUTKEY", "")),
        recipe=recipe,
        version=int(str(cards["VERSION"])),
        preset=preset,
        inputs=tuple((name, sha) for name, sha, role in provenance if role == "input"),
        calibrations=tuple(row for row in provenance if row[2] in set(CalKind)),
        by_path=tuple(row for row in provenance if row[2] != "input" and row[2] not in set(CalKind)),
        made_with=_made_with(cards, history),
        parameters=_chosen(recipe, preset, history),
        notes=read_notes(path) or tuple(_notes(path)),
        quality={name: merged[name] for name in QUALITY if name in merged}
        | ({"frames": rows} if (rows := read_members(path)) else {})
        | ({"measures": figures} if (figures := read_measures(path)) else {}),
        descriptors=describe(merged, filename=path.name),
        time_stamp=stamp,
        written=path.stat().st_mtime,
        ut=_seconds(stamp),
    )


def _made_with(
    cards: Mapping[str, Any], history: Sequence[tuple[str, Mapping[str, Any], str]]
) -> dict[str, str]:
    found = {name: str(cards[card]) for name, card in CARDS.items() if card in cards}
    releases = list(dict.fromkeys(version for _, _, version in history if version))
    return {"nirid": " ".join(word.removeprefix("nirid ") for word in releases)} | found


def _chosen(
    recipe: str, preset: str, history: Sequence[tuple[str, Mapping[str, Any], str]]
) -> dict[str, Any]:
    """The parameters that somebody chose: those that the recipe would not have had by itself."""
    from pipeline.recipes import RECIPES

    if recipe not in RECIPES:
        return {}
    own = {bound.step.name: bound.values() for bound in RECIPES[recipe].bind({}, preset=preset).steps}
    plain = json.loads(json.dumps(own, default=str))
    return {
        f"{step}:{name}": value
        for step, values, _ in history
        for name, value in values.items()
        if f"{step}:{name}" == REMOVE_FIRST or (step in plain and plain[step].get(name) != value)
    }


def _notes(path: Path) -> list[str]:
    """The same of a release that wrote no NOTES. A long text is cut into cards of 72 characters, and loses
    the blank that it was cut at."""
    from astropy.io import fits

    notes: list[str] = []
    room = 0
    for card in fits.getheader(path).get("HISTORY", []):
        text = str(card)
        if notes and room <= 1:
            notes[-1] += " " * room + text
        else:
            notes.append(text)
        room = 72 - len(text)
    return notes


def _seconds(iso: str) -> float:
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return 0.0
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
