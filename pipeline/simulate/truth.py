"""What a night's truth.json says, what a product file holds, and how the two are compared."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from pipeline.simulate.detector import BoolImage, FloatImage, centre_of

Array = npt.NDArray[Any]


class Check(NamedTuple):
    """One number that must lie between two limits, and a sentence that says so."""

    name: str
    value: float
    low: float
    high: float
    ok: bool
    sentence: str


def check(name: str, value: float, low: float, high: float, unit: str = "") -> Check:
    ok = bool(low <= value <= high)
    text = f"{name}: {value:.4g}{unit}, {'within' if ok else 'NOT within'} {low:.4g} to {high:.4g}"
    return Check(name, float(value), float(low), float(high), ok, text)


def around(name: str, value: float, middle: float, half: float, error: float, unit: str = "") -> Check:
    reach = max(half, 3 * error)
    return check(name, value, middle - reach, middle + reach, unit)


def spread(values: Array) -> float:
    """Standard deviation by the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def median_error(values: Array) -> float:
    return float(1.2533 * spread(values) / np.sqrt(max(values.size, 1)))


def spread_error(value: float, count: int) -> float:
    """Of a spread from `count` values (the efficiency of the MAD is 37 percent)."""
    return float(1.166 * value / np.sqrt(max(count, 1)))


@dataclass(frozen=True)
class Truth:
    """truth.json of a night, read when asked."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "truth.json").read_text(encoding="utf-8"))
        return facts

    @cached_property
    def frames(self) -> dict[str, dict[str, Any]]:
        return {Path(frame["file"]).stem: frame for frame in self.facts["frames"]}

    def image(self, name: str, size: int) -> FloatImage | None:
        """The true flat or dark, cut to the centre; None when this truth has no images."""
        if name not in self.facts:
            return None
        data = fits.getdata(self.folder / self.facts[name]).astype(np.float32)
        return np.ascontiguousarray(centre_of(data, size))

    def defects(self, size: int) -> tuple[FloatImage, BoolImage]:
        """Dark rate of the hot pixels (0 elsewhere), and the dead pixels, cut to the centre."""
        hot, dead = np.zeros((1024, 1024), np.float32), np.zeros((1024, 1024), bool)
        for row, column, rate in self.facts["bad_pixels"]["hot"]:
            hot[row, column] = rate
        dead[tuple(np.array(self.facts["bad_pixels"]["dead"]).T)] = True
        return centre_of(hot, size), centre_of(dead, size)


@dataclass(frozen=True, eq=False)
class Product:
    """A product file; native byte order, NaN nowhere."""

    path: Path
    phu: fits.Header
    header: fits.Header
    sci: FloatImage
    var: FloatImage
    dq: Array
    coverage: Array | None
    members: Array | None = None  # the FRAMES table: also of frames that are not in the stack

    @classmethod
    def read(cls, path: Path) -> Product:
        with fits.open(path) as units:
            planes = {unit.name: unit.data for unit in units[1:] if unit.is_image}
            sci = next(iter(planes.values())).astype(np.float32)
            header = next(unit.header for unit in units[1:] if unit.is_image)
            var = planes.get("VAR", np.zeros_like(sci)).astype(np.float32)
            dq = planes.get("DQ", np.zeros(sci.shape, np.uint16)).astype(np.uint16)
            members = units["FRAMES"].data if "FRAMES" in units else None
            members = None if members is None else np.array(members)
            return cls(path, units[0].header, header, sci, var, dq, planes.get("COVERAGE"), members)

    def wcs(self) -> WCS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)  # dates that the WCS library spells otherwise
            return WCS(self.header)

    def inputs(self) -> list[str]:
        """Roots of the frames it was made from; those that were left out are not among them."""
        cards = sorted(key for key in self.phu if key.startswith("IMCM"))
        names = [str(self.phu[key]) for key in cards] or [self.path.name]
        return [root(name) for name in names]

    def weights(self) -> Array:
        """What each of the inputs counts for in the stack; they sum up to 1."""
        names = self.inputs()
        known = {}
        if self.members is not None and "WEIGHT" in (self.members.dtype.names or ()):
            known = {root(row["NAME"]): float(row["WEIGHT"]) for row in self.members}
        weights = np.array([known.get(name, 1.0) for name in names])
        return np.asarray(weights / weights.sum())


def root(name: Any) -> str:
    """N20160102S0270 of N20160102S0270_flatCorrected.fits"""
    text = name.decode("ascii") if isinstance(name, bytes) else str(name)
    return text.strip().split(".")[0].split("_")[0]
