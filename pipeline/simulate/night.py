"""A whole night on disk, with everything that is true of it in truth.json."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.files import outputs
from pipeline.simulate import detector as det
from pipeline.simulate.cards import airmass
from pipeline.simulate.detector import Detector
from pipeline.simulate.facts import field_truth, frame_truth
from pipeline.simulate.faults import NOTHING, Motion, trail
from pipeline.simulate.presets import LAMP_RATE, PRESETS, THERMAL_RATE
from pipeline.simulate.rawfile import write_fits
from pipeline.simulate.runs import Preset
from pipeline.simulate.shot import RawFrame, Shot
from pipeline.simulate.sky import EXTINCTION, MOFFAT_BETA, SKY_BRIGHTNESS, ZERO_POINTS, Field, offset_position

TRUTH = "truth.json"
STATIC_BPM = "bpm_20010317_niri_niri_11_full_1amp.fits"
FIELD_OF_VIEW_FRACTION = 0.9  # an offset beyond this much of the field is a sky pointing, unguided


@dataclass(frozen=True)
class Options:
    """What can be asked of a night besides its preset.

    pattern : eight-column pattern noise, rms in ADU;  jitter : pointing errors, up to so many pixels;
    cosmic : cosmic rays;  clouds : rms of the transparency;  drift : amplitude of the sky's slow change;
    size : side of the array read out, None for the preset's;  dtype : float32 or int32
    """

    pattern: float = 0.0
    jitter: float = 2.0
    cosmic: bool = True
    clouds: float = 0.01
    drift: float = 0.015
    size: int | None = None
    dtype: str = "float32"


def simulate_night(
    folder: Path,
    preset: str | Preset,
    seed: int | None = None,
    *,
    on_file: Callable[[Path, int, int], None] | None = None,
    **options: Any,
) -> Path:
    """Write a night's raw frames in order of observation, then truth.json; returns the path of the latter.

    on_file : called after each file with its path, its number from 1, and how many there will be;
        it may wait, so that frames land at some pace. The static mask comes first.
    preset : the name of one, or one of your own
    options : the fields of `Options`. An unknown preset or option is a ValueError.

    The same preset, seed and options give the same bytes. Truth images (flat, dark, full array) are in
    the hidden folder .truth, where nothing that watches the night's folder takes them for frames.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are: {', '.join(PRESETS)}")
    unknown = options.keys() - Options.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"no option {', '.join(sorted(unknown))}; there are: {', '.join(asdict(Options()))}")
    plan, chosen = preset if isinstance(preset, Preset) else PRESETS[preset], Options(**options)
    seed = plan.seed if seed is None else seed
    _may_be_written_to(folder)
    folder.mkdir(parents=True, exist_ok=True)
    streams = [np.random.SeedSequence(seed, spawn_key=(stream,)) for stream in range(3)]
    array = det.make_detector(np.random.default_rng(streams[0]))
    fields = plan.fields(np.random.default_rng(streams[1]))
    shots = list(night_shots(plan, fields, array, chosen, np.random.default_rng(streams[2])))
    write_truth_images(folder / ".truth", array)
    write_static_bpm(folder / STATIC_BPM, array)
    report = on_file or (lambda path, number, total: None)
    report(folder / STATIC_BPM, 1, len(shots) + 1)

    frames = []
    for number, raw in enumerate(render_in_order(shots, seed), 2):
        path = folder / f"{raw.shot.name}.fits"
        raw.write(path)
        frames.append(frame_truth(raw))
        report(path, number, len(shots) + 1)
    truth = night_truth(plan, seed, chosen, array, fields, shots) | {"frames": frames}
    target = folder / TRUTH
    target.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return target


def _may_be_written_to(folder: Path) -> None:
    """Raises WouldOverwrite when there are frames that no simulation has put there."""
    truth, ours = folder / TRUTH, set[str]()
    outputs.check(truth, "truth")
    if truth.exists():
        frames = json.loads(truth.read_text(encoding="utf-8"))["frames"]
        ours = {STATIC_BPM, *(str(frame.get("file")) for frame in frames if isinstance(frame, dict))}
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for name in names:
        if ".fit" in name.lower() and name not in ours:
            raise outputs.WouldOverwrite(
                f"{folder / name} is there already, and no simulated night: choose another folder"
            )


def night_shots(
    plan: Preset, fields: dict[str, Field], array: Detector, options: Options, rng: np.random.Generator
) -> Iterator[Shot]:
    """The exposures in order of time, with the conditions of each."""
    period, phase = rng.uniform(25, 45) * 60, rng.uniform(0, 2 * np.pi)
    begin = min(run.start for run in plan.runs)
    for run in sorted(plan.runs, key=lambda run: run.start):
        night, first = run.first[:9], int(run.first[10:])
        step = run.shot.end - run.shot.start + timedelta(seconds=run.overhead)
        for k, offset in enumerate(run.offsets):
            start = run.start + k * step
            size = min(options.size or run.shot.shape[0], run.shot.shape[0])
            wave = np.sin(2 * np.pi * (start - begin).total_seconds() / period + phase)
            name = f"{night}S{first + k:04d}"
            fault = plan.faults.get(name, run.faults.get(k, NOTHING))
            shot = replace(
                run.shot,
                name=name,
                start=_to_tenth(start),
                number=run.number + k,
                offset=offset,
                shape=(size, size),
                field=fields.get(run.field),
                light=_light(run.shot, rng, float(wave), options, fault.lamp),
                fwhm=float(np.clip(rng.normal(4.2, 0.25), 3.5, 5.0)),
                pointing_error=_pointing_error(rng, options.jitter),
                cosmic=options.cosmic,
                pattern=options.pattern,
                dtype=options.dtype,
                guided=max(map(abs, offset)) < FIELD_OF_VIEW_FRACTION * 0.1171 * size,
            )
            clouds = float(np.exp(rng.normal(0, options.clouds)))
            masses = airmass(*shot.target, shot.start)
            shot = replace(shot, transparency=clouds * 10 ** (-0.4 * EXTINCTION * (masses - 1)))
            if run.motion:
                shot = _with_motion(shot, run.motion, (start - run.start).total_seconds())
            yield shot.with_detector(array).with_fault(fault)


def _with_motion(shot: Shot, motion: Motion, seconds: float) -> Shot:
    """The frame of a target that has moved for so long. RATRACK is in seconds of time a second, DECTRACK in
    arcsec a second, as the sidereal rate of a parked telescope's header says."""
    east, north = motion.at(seconds)
    place = offset_position(*shot.target, east, north)
    rate = np.array(motion.rate) / 3600
    moved = np.linalg.solve(shot.header_pointing.cd, rate) * shot.exposure * shot.coadds
    line = trail(float(np.hypot(*moved)), float(np.rad2deg(np.arctan2(moved[1], moved[0]))))
    shot = replace(shot, mover=(*place, motion.mag)).with_cards(
        RATRACK=float(rate[0] / 15 / np.cos(np.deg2rad(place[1]))), DECTRACK=float(rate[1])
    )
    if motion.follows == "telescope":
        return replace(shot, target=place, star_smear=line)
    pa = np.deg2rad(shot.pa)
    # An offset of the telescope moves the light the other way.
    p, q = east * np.cos(pa) - north * np.sin(pa), east * np.sin(pa) + north * np.cos(pa)
    return replace(shot, mover_smear=line, header_offset=(-float(p), -float(q)))


def _to_tenth(when: datetime) -> datetime:
    """Down to what the header keeps."""
    return when.replace(microsecond=when.microsecond // 100_000 * 100_000)


def _pointing_error(rng: np.random.Generator, most: float) -> tuple[float, float]:
    dx, dy = np.clip(rng.normal(0, most / 2, 2), -most, most) if most else (0.0, 0.0)
    return float(dx), float(dy)


def _light(shot: Shot, rng: np.random.Generator, wave: float, options: Options, lamp_factor: float) -> float:
    """Uniform light in e-/s: the drifting sky, or the lamp and the warm calibration unit."""
    jitter = rng.normal()
    if shot.kind == "dark":
        return 0.0
    if shot.kind.startswith("flat"):
        lamp = LAMP_RATE[shot.filter] * (1 + 0.0007 * jitter) if shot.kind == "flaton" else 0.0
        return float(lamp * lamp_factor + THERMAL_RATE[shot.filter])
    area = shot.header_pointing.pixel_area
    dark_sky = area * 10 ** (0.4 * (ZERO_POINTS[shot.filter] - SKY_BRIGHTNESS[shot.filter]))
    return float(dark_sky * (1 + options.drift * wave + 0.001 * jitter))


def render_in_order(shots: list[Shot], seed: int) -> Iterator[RawFrame]:
    """The raw frames; stars that saturate leave their image in the frames of the next two minutes."""
    burnt: list[tuple[datetime, det.BoolImage]] = []
    for k, shot in enumerate(shots):
        recent = [((shot.start - when).total_seconds(), where) for when, where in burnt]
        raw = replace(shot, latent=det.latent_image(recent, shot.well, shot.shape)).render(
            np.random.SeedSequence(seed, spawn_key=(3, k))
        )
        if not shot.fault.saturated:  # an even residual image would be a fault of its own
            burnt = [*burnt[-12:], (shot.start, raw.saturated & ~shot.array.hot)]
        yield raw


def night_truth(
    plan: Preset, seed: int, options: Options, array: Detector, fields: dict[str, Field], shots: list[Shot]
) -> dict[str, Any]:
    good = ~array.hot & ~array.dead
    used = {shot.field.name for shot in shots if shot.field}
    return {
        "format": 1,
        "plan": plan.name,
        "seed": seed,
        "gain": det.GAIN,
        "well": det.WELL,
        "read_noise": det.READ_NOISE,
        "nonlinearity": [
            {"read_mode": mode, "rows": rows, "well": well, **curve._asdict()}
            for (mode, rows, well), curve in det.NONLINEARITY.items()
        ],
        "nonlinearity_note": "a combination that is not listed is exactly linear, time_delta 0",
        "dark_median_e_per_s": float(np.median(array.dark_rate[good])),
        "pedestal_median_e": array.pedestal,
        "flat_rms": float(array.response[good].std()),
        "flat": ".truth/flat.fits",
        "dark": ".truth/dark.fits",
        "images_note": "full array; flat: response; dark: e-/s, to which the pedestal comes once a coadd",
        "bad_pixels": {
            "hot": [
                [int(y), int(x), round(float(array.dark_rate[y, x]), 1)] for y, x in np.argwhere(array.hot)
            ],
            "dead": np.argwhere(array.dead).tolist(),
            "note": "[row, column] 0-based on the full array (hot, with the warm ones: + e-/s)",
            "static_bpm_pixels": int(array.static_bpm.sum()),
        },
        "static_bpm": STATIC_BPM,
        "latency": {"fraction": det.LATENT_FRACTION, "decay_seconds": det.LATENT_DECAY_SECONDS},
        "psf": {"profile": "moffat", "beta": MOFFAT_BETA},
        "extinction_mag_per_airmass": EXTINCTION,
        "options": asdict(options),
        "fields": [field_truth(field, shots) for field in fields.values() if field.name in used],
    }


def write_truth_images(folder: Path, array: Detector) -> None:
    folder.mkdir(exist_ok=True)
    for name, image in (("flat", array.response), ("dark", array.dark_rate)):
        hdu = fits.PrimaryHDU(image)
        write_fits(folder / f"{name}.fits", [(hdu.header, image.astype(image.dtype.newbyteorder(">")))])


def write_static_bpm(path: Path, array: Detector) -> None:
    """The observatory's mask of 2001: one unnamed 16-bit image, 1 where a pixel is bad."""
    phu = fits.PrimaryHDU().header
    for key, value in (
        ("INSTRUME", "NIRI"),
        *((key, "Gemini-North") for key in ("TELESCOP", "OBSERVAT")),
        *((key, "BPM") for key in ("OBJECT", "OBSTYPE")),
        ("OBSCLASS", "dayCal"),
        ("BPMASK", True),
        ("GEMPRGID", "GN-CALBPM"),
        ("OBSID", "GN-CALBPM-1"),
        ("DATALAB", "GN-CALBPM-1-001"),
        ("DATE-OBS", "2001-03-17"),
        ("UT", "00:00:00.0"),
        ("EXPTIME", 0.0),
        ("COADDS", 1),
    ):
        phu[key] = value
    image = array.static_bpm.astype(">i2")
    ext = fits.ImageHDU(image).header
    for key, last in (("LOWROW", 0), ("HIROW", 1023), ("LOWCOL", 0), ("HICOL", 1023)):
        ext[key] = last
    write_fits(path, [(phu, None), (ext, image)])
