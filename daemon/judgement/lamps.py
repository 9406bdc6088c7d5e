"""How Gemini takes lamp flats: its own table, what it says of one configuration, and whether a flat agrees.

table = table_of(text)                  # daemon/data/niri_flats.csv
lamp = table.get(setup_of(facts))       # None: there is no row
differences(lamp, facts_of_a_flat)      # "" when they agree
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import NiridError
from pipeline.headers.descriptors import Descriptors

FLATS = 10  # with the lamp open, and as many closed
_CAMERAS = {"f13.9": "f14"}  # as headers have it
_COLUMNS = ["camera", "filter", "lamp", "closed", "gcal_filter", "seconds"]
# Exposures in headers are a millisecond longer than what was asked for.
_NEAR = 0.02  # s

Setup = tuple[str, str]  # camera, filter as Gemini displays it


@dataclass(frozen=True)
class Lamp:
    """lamp : name of it in the headers of open frames; closed : in those of closed ones, which may differ

    gcal_filter : ND2.0 and the like, "none", or a colour balance; seconds : of one exposure
    """

    lamp: str
    closed: str
    gcal_filter: str
    seconds: float


def table_of(text: str) -> Mapping[Setup, Lamp]:
    """The table from its text. NiridError names a line that cannot be read."""
    table: dict[Setup, Lamp] = {}
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    if not lines or lines[0].split(",") != _COLUMNS:
        raise NiridError(f"niri_flats.csv: the first line must be {','.join(_COLUMNS)}")
    for row in csv.reader(lines[1:]):
        try:
            camera, filter_, lamp, closed, gcal_filter, seconds = row
            table[camera, filter_] = Lamp(lamp, closed, gcal_filter, float(seconds))
        except ValueError:
            raise NiridError(f"niri_flats.csv: {','.join(row)}: {', '.join(_COLUMNS)} wanted") from None
    return table


def camera_of(facts: Descriptors) -> str:
    """f6, f14, f32; "" where the header does not say."""
    return _CAMERAS.get(facts.camera or "", facts.camera or "")


def shown(camera: str) -> str:
    """f/6, as people write it."""
    return f"f/{camera[1:]}" if camera.startswith("f") else camera or "unknown camera"


def setup_of(facts: Descriptors) -> Setup:
    return camera_of(facts), facts.filter_pretty


_NAMES = {"IRhigh": "IR grey body high", "IRlow": "IR grey body low", "QH": "quartz halogen"}


def in_words(lamp: Lamp) -> str:
    """IR grey body high, ND1.0, 1.4 s, 10 open + 10 closed."""
    filter_ = "no filter" if lamp.gcal_filter == "none" else lamp.gcal_filter
    names = _NAMES.get(lamp.lamp, lamp.lamp)
    more = "" if lamp.closed == lamp.lamp else f" (closed may say {lamp.closed})"
    return f"{names}, {filter_}, {lamp.seconds:g} s, {FLATS} open + {FLATS} closed{more}"


def as_taken(facts: Descriptors) -> Lamp:
    """What the header of a flat says of its lamp."""
    lamp = facts.gcal_lamp_raw or "unknown lamp"
    seconds = (facts.exposure_time or 0.0) / max(1, facts.coadds)
    return Lamp(lamp, lamp, facts.gcal_filter or "unknown filter", round(seconds, 2))


def differences(lamp: Lamp, facts: Descriptors, *, lamp_on: bool = True) -> str:
    """What a flat has other than the table, in words; "" when they agree.

    Only neutral densities are compared: how headers spell the other filters is not known for sure. The lamp
    is compared in open frames alone, and both ways of naming it are right in closed ones.
    """
    had = as_taken(facts)
    other = []
    if lamp_on and had.lamp != lamp.lamp:
        other.append(f"lamp {had.lamp} (table {lamp.lamp})")
    if had.gcal_filter != lamp.gcal_filter and (had.gcal_filter + lamp.gcal_filter).count("ND") == 2:
        other.append(f"{had.gcal_filter} (table {lamp.gcal_filter})")
    if abs(had.seconds - lamp.seconds) > _NEAR:
        other.append(f"{had.seconds:g} s (table {lamp.seconds:g} s)")
    if facts.coadds != 1:
        other.append(f"{facts.coadds} coadds (table 1)")
    return ", ".join(other)
