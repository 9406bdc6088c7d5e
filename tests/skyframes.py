"""Calibrated NIRI frames of a known sky, small and quick, for tests of the steps after flatCorrect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.frame import Frame
from pipeline.headers.merged import FACT_CARDS, merge
from pipeline.headers.tangent import tangent
from pipeline.simulate import Shot

START = datetime(2016, 1, 2, 6, tzinfo=UTC)
TARGET = (148.9255, 20.0)
READ = 35.0
Star = tuple[float, float, float]  # arcsec east and north of the target, electrons


def add_star(image: Any, x: float, y: float, flux: float, fwhm: float, beta: float = 3.0) -> None:
    """A star as the pixels see it, on 3 x 3 points each, out to 40 pixels."""
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    box = tuple(slice(max(0, round(v) - 40), max(0, round(v) + 41)) for v in (y, x))
    rows, columns = np.indices(image.shape)[(slice(None), *box)]
    out = np.zeros(rows.shape)
    for oy in (-1 / 3, 0, 1 / 3):
        for ox in (-1 / 3, 0, 1 / 3):
            r2 = (columns + ox - x) ** 2 + (rows + oy - y) ** 2
            out += flux * (beta - 1) / (np.pi * alpha2) * (1 + r2 / alpha2) ** -beta / 9
    image[box] += out


def calibrated(
    number: int,
    offset: tuple[float, float] = (0.0, 0.0),
    *,
    stars: Sequence[Star] = (),
    sky: float = 2000.0,
    seconds: float | None = None,
    error: tuple[float, float] = (0.0, 0.0),
    fwhm: float = 4.5,
    size: int = 256,
    scene: Any = None,
    roles: frozenset[str] = frozenset(),
    skies: tuple[str, ...] = (),
    **shot: Any,
) -> Frame:
    """A frame as flatCorrect leaves it: electrons, VAR and DQ right.

    offset : of the telescope, arcsec; error : pixels by which the sky lies off the header's WCS
    scene : function of pixels (x, y) of the undisturbed frame giving electrons, moves with the sky
    """
    name = f"N20160102S{number:04d}"
    start = START + timedelta(seconds=30.0 * number if seconds is None else seconds)
    made = Shot(
        name=name,
        start=start,
        shape=(size, size),
        offset=offset,
        number=number,
        port=3,
        target=TARGET,
        **shot,
    )
    cards = {key: value for key, value in merge(*made.headers()).items() if key in FACT_CARDS}
    cards["EXPTIME"] *= cards.get("COADDS", 1)
    cards |= {"PREPARE": "yes", "BUNIT": "electron", "GAIN": 1.0, "RDNOISE": READ}
    cards |= {"SATLEVEL": 200000.0, "NONLINEA": 140000.0}
    header = fits.Header(list(cards.items()))
    wcs = tangent(header)
    assert wcs is not None
    light = np.full((size, size), sky)
    ra, dec = TARGET
    for east, north, flux in stars:
        x, y = wcs.to_pixel(ra + east / 3600 / np.cos(np.radians(dec)), dec + north / 3600)
        if -40 < x < size + 40 and -40 < y < size + 40:
            add_star(light, float(x) + error[0], float(y) + error[1], flux, fwhm)
    if scene is not None:
        tx, ty = wcs.to_pixel(ra, dec)
        rows, columns = np.indices((size, size))
        light += scene(columns - tx - error[0], rows - ty - error[1])
    var = light + READ**2
    noise = np.random.default_rng(number).normal(0, 1, (size, size)) * np.sqrt(var)
    return Frame(
        (light + noise).astype(np.float32), np.zeros((size, size), np.uint16), header, "electron",
        f"{name}.fits", var=var.astype(np.float32), roles=roles, skies=skies,
    )  # fmt: skip


FIVE = ((0.0, 0.0), (5.0, 3.0), (-4.0, 3.0), (-3.0, -4.0), (4.0, -5.0))


def star_field(count: int, seed: int = 7, radius: float = 14.0, faintest: float = 3e3) -> list[Star]:
    """Stars spread over the field, bright ones rare."""
    rng = np.random.default_rng(seed)
    flux = faintest * (1 - rng.random(count)) ** -0.9
    east, north = rng.uniform(-radius, radius, (2, count))
    return [(float(e), float(n), float(min(f, 5e5))) for e, n, f in zip(east, north, flux, strict=True)]
