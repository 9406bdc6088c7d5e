"""What truth.json says of a simulated night: its fields, and everything that is true of each frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.simulate.cards import airmass, clock
from pipeline.simulate.faults import SHARP
from pipeline.simulate.presets import THERMAL_RATE
from pipeline.simulate.shot import RawFrame, Shot
from pipeline.simulate.sky import EXTINCTION, ZERO_POINTS, Field, offset_position

TRUTH = "truth.json"
STATIC_BPM = "bpm_20010317_niri_niri_11_full_1amp.fits"
FIELD_OF_VIEW_FRACTION = 0.9  # an offset beyond this much of the field is a sky pointing, unguided


def frame_truth(raw: RawFrame) -> dict[str, Any]:
    """Everything that is true of one frame. Pixels are 0-based, [row, column] or (x, y) as named."""
    shot = raw.shot
    rows, cols = np.nonzero(raw.hits)
    facts: dict[str, Any] = {
        "file": f"{shot.name}.fits",
        "kind": shot.kind,
        "exptime": shot.exposure,
        "coadds": shot.coadds,
        "read_mode": shot.read_mode,
        "well": shot.well,
        "filter": "blank" if shot.kind == "dark" else shot.filter,
        "utc": f"{shot.start:%Y-%m-%d}T{clock(shot.start)}",
        "roi": shot.shape[0],
        "program": shot.program,
        "obsid": f"{shot.program}-{shot.observation}",
        "cosmic_rays": len(rows),
        "cosmic_ray_pixels": [
            [int(y), int(x), float(raw.hits[y, x])] for y, x in zip(rows, cols, strict=True)
        ],
        "saturated_pixels": int((raw.saturated & ~shot.array.hot & ~shot.array.dead).sum()),
        "latent_pixels": int(np.count_nonzero(shot.latent)),
    }
    if wrong := shot.fault.facts():
        facts["fault"] = wrong
    if shot.kind.startswith("flat"):
        thermal = THERMAL_RATE[shot.filter]
        return facts | {"lamp_rate": shot.light - thermal, "thermal_rate": thermal}
    if shot.field is None:
        return facts
    header, true = shot.header_pointing, shot.true_pointing
    target = true.pixels(*(np.array([value]) for value in shot.field.target))
    # The sky position that truly fell on the header's reference pixel.
    ra, dec = _position_at(shot, header.x - shot.pointing_error[0], header.y - shot.pointing_error[1])
    masses = airmass(*shot.target, shot.start)
    if shot.mover:
        x, y = true.pixels(*(np.array([value]) for value in shot.mover[:2]))
        facts["mover"] = {
            "radec": list(shot.mover[:2]),
            "mag": shot.mover[2],
            "xy": [float(x[0]), float(y[0])],
        }
    if shot.fault.smear != SHARP:
        facts["smear"] = [list(part) for part in shot.fault.smear]
    return facts | {
        "object": shot.object_name,
        "field": shot.field.name,
        "pa": shot.pa,
        "poffset": shot.offset[0],
        "qoffset": shot.offset[1],
        "header_radec": [header.ra, header.dec],
        "true_radec": [ra, dec],
        "wcs_error_pix": list(shot.pointing_error),
        "pixel_scale": float(np.sqrt(header.pixel_area)),
        "sky_rate": shot.light,
        "airmass": masses,
        "cloud_transparency": shot.transparency * 10 ** (0.4 * EXTINCTION * (masses - 1)),
        "transparency": shot.transparency,
        "fwhm_pix": shot.fwhm,
        "guided": shot.guided,
        "target_xy": [float(target[0][0]), float(target[1][0])],
    }


def _position_at(shot: Shot, x: float, y: float) -> tuple[float, float]:
    nominal = shot.header_pointing
    east, north = nominal.cd @ (x - nominal.x, y - nominal.y)
    return offset_position(nominal.ra, nominal.dec, float(east), float(north))


def field_truth(field: Field, shots: list[Shot]) -> dict[str, Any]:
    shot = next(shot for shot in shots if shot.field and shot.field.name == field.name)
    zero_point = ZERO_POINTS[shot.filter]
    sources = [
        {"ra": ra, "dec": dec, "mag": mag, "flux_e_per_s": 10 ** (0.4 * (zero_point - mag))}
        for ra, dec, mag in zip(field.ra.tolist(), field.dec.tolist(), field.mag.tolist(), strict=True)
    ]
    facts: dict[str, Any] = {"field": field.name, "filter": shot.filter, "object": shot.object_name}
    if field.galaxy:
        facts["galaxy"] = field.galaxy._asdict()
    return facts | {"target": list(field.target), "zeropoint_e": zero_point, "sources": sources}
