"""Where the Sun is over Mauna Kea, and which part of the observing day that makes it.

    phase(now, night)  # "night", "morning" or "finished"

The observing day is one UT date: it begins and ends at 14:00 in Hawaii, and its night lies within it.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Literal

Phase = Literal["night", "morning", "finished"]

# Gemini North, degrees, east positive (Gemini's page of its sites).
LATITUDE, LONGITUDE = 19.8238, -155.4690
NAUTICAL = -12.0  # degrees: partner standards are taken between the nautical twilights
RISING = -0.833  # degrees: refraction and half of the Sun's width (The Astronomical Almanac)
HAWAII = timedelta(hours=-10)  # no summer time
_J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
_MIDNIGHT = timedelta(hours=10, minutes=22)  # UT of local mean midnight, by the longitude
_HALF_DAY = timedelta(hours=12)


def sun_altitude(when: datetime) -> float:
    """Degrees of the Sun's centre above the horizon, without refraction. when : aware

    The Astronomical Almanac's low-precision Sun (page C5; 0.01 degrees, 1950 to 2050) with its mean sidereal
    time; UT1 is taken for UTC, 0.004 degrees at most.
    """
    days = (when - _J2000).total_seconds() / 86400.0
    anomaly = math.radians(357.528 + 0.9856003 * days)
    mean = 280.460 + 0.9856474 * days
    longitude = math.radians(mean + 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly))
    tilt = math.radians(23.439 - 0.0000004 * days)
    right_ascension = math.atan2(math.cos(tilt) * math.sin(longitude), math.cos(longitude))
    declination = math.asin(math.sin(tilt) * math.sin(longitude))
    sidereal = 15.0 * (18.697374558 + 24.06570982441908 * days) + LONGITUDE
    hour = math.radians(sidereal) - right_ascension
    latitude = math.radians(LATITUDE)
    height = math.sin(latitude) * math.sin(declination)
    height += math.cos(latitude) * math.cos(declination) * math.cos(hour)
    return math.degrees(math.asin(height))


def day_of(night: str) -> tuple[datetime, datetime]:
    """Begin and end of the observing day of a night (20160102)."""
    begin = datetime.strptime(f"{night}+0000", "%Y%m%d%z").astimezone(UTC)
    return begin, begin + timedelta(days=1)


def dawn(night: str) -> datetime:
    """The nautical twilight of the morning: the Sun is 12 degrees down and rising. To a second."""
    return _rises_to(NAUTICAL, night)


def sunrise(night: str) -> datetime:
    """When the upper edge of the Sun is at the horizon of the sea in the morning. To a second.

    Seen from the summit it is there eight minutes before: the horizon lies two degrees lower.
    """
    return _rises_to(RISING, night)


def _rises_to(altitude: float, night: str) -> datetime:
    low = day_of(night)[0] + _MIDNIGHT
    high = low + _HALF_DAY
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (low, middle) if sun_altitude(middle) > altitude else (middle, high)
    return high


def phase(now: datetime, night: str) -> Phase:
    """night : it goes on or is to come; morning : of day calibrations; finished : the day ended."""
    if now >= day_of(night)[1]:
        return "finished"
    return "morning" if now >= dawn(night) else "night"
