"""One exposure: an immutable description, built by a chain, and the raw frame made from it.

raw = (
    Shot(shape=(64, 64), exposure=20.002)
    .with_sky(1500.0)
    .with_sources([(30.2, 31.7, 8000.0)])
    .with_dark(0.25, pedestal=131.0)
    .render(seed=1)
)
raw.adu            # float32, sum of coadds
raw.electrons      # what a perfect reduction of this frame would find before dark and flat
raw.write(folder / "N20160102S0271.fits")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.simulate import cards
from pipeline.simulate.detector import (
    ARRAY_SIZE,
    GAIN,
    OVERHEAD_SECONDS,
    WELL,
    BoolImage,
    Detector,
    FloatImage,
    column_pattern,
    cosmic_rays,
    perfect_detector,
    read_out,
)
from pipeline.simulate.faults import NOTHING, OVERFULL, SHARP, Fault, Smear, smeared
from pipeline.simulate.rawfile import write_fits
from pipeline.simulate.sky import ZERO_POINTS, Field, Pointing, Vector, offset_position, render_stars

# Scales along x and y of the f/6 camera as real CD matrices give them, arcsec a pixel.
PIXEL_SCALE_XY = (0.11709, 0.11641)
REFERENCE_PIXEL = (526.92, 498.60)  # 0-based, full array

OBSTYPES = {"object": "OBJECT", "standard": "OBJECT", "flaton": "FLAT", "flatoff": "FLAT", "dark": "DARK"}
OBSCLASSES = {"object": "science", "standard": "partnerCal"}


@dataclass(frozen=True, eq=False)
class Shot:
    """Everything that decides a raw frame. Rates are electrons per second and pixel.

    kind : object, standard, flaton, flatoff or dark
    exposure : seconds of one coadd, as EXPTIME says
    shape : (ny, nx); a square up to 1024 is the centre of the array
    target, offset : degrees, and arcsec along P and Q (east and north at position angle 0)
    pointing_error : pixels (x, y) by which a star lies away from where the header puts it
    light : uniform illumination (sky, lamp or thermal), before the response of the pixels
    sources : rows (x, y, e-/s), 0-based pixels of this frame
    latent : mean electrons of residual image
    fault : what is wrong with it, see `with_fault`
    mover : a source that moves, (ra, dec, mag);  star_smear, mover_smear : where the light of a star, and
        of that source, goes while the telescope tracks the other
    header_offset : arcsec that POFFSET and QOFFSET say besides `offset`
    """

    kind: str = "object"
    name: str = "N20160102S0001"
    start: datetime = datetime(2016, 1, 2, 6, tzinfo=UTC)
    exposure: float = 20.002
    coadds: int = 1
    read_mode: str = "Medium Background"
    well: str = "Shallow"
    filter: str = "Kprime"
    shape: tuple[int, int] = (256, 256)
    target: tuple[float, float] = (148.9255, 69.6739)
    offset: tuple[float, float] = (0.0, 0.0)
    pa: float = 0.0
    port: int = 1
    guided: bool = True
    program: str = "GN-2015B-Q-901"
    observation: int = 31
    number: int = 1
    object_name: str = "SN2014J-SIM"
    detector: Detector | None = None
    light: float = 0.0
    sources: Vector = field(default_factory=lambda: np.zeros((0, 3)))
    field: Field | None = None
    fwhm: float = 4.3
    transparency: float = 1.0
    pointing_error: tuple[float, float] = (0.0, 0.0)
    cosmic: bool = False
    latent: FloatImage | float = 0.0
    pattern: float = 0.0
    fault: Fault = NOTHING
    mover: tuple[float, float, float] | None = None
    star_smear: Smear = SHARP
    mover_smear: Smear = SHARP
    header_offset: tuple[float, float] = (0.0, 0.0)
    dtype: str = "float32"
    cards: tuple[tuple[str, Any], ...] = ()
    image_cards: tuple[tuple[str, Any], ...] = ()

    def with_sky(self, rate: float) -> Shot:
        """Uniform light, e-/s."""
        return replace(self, light=rate)

    def with_sources(self, sources: Iterable[tuple[float, float, float]], fwhm: float | None = None) -> Shot:
        """Stars at pixels (x, y, e-/s), besides those of the field."""
        rows = np.array(list(sources), float).reshape(-1, 3)
        return replace(self, sources=np.concatenate([self.sources, rows]), fwhm=fwhm or self.fwhm)

    def with_field(self, field: Field) -> Shot:
        """The sky around a target; stars and galaxy fall where the true pointing puts them."""
        return replace(self, field=field, target=field.target)

    def with_dark(self, rate: float | FloatImage, pedestal: float = 0.0) -> Shot:
        """Dark current, e-/s, and pedestal, electrons of one coadd."""
        image = np.broadcast_to(np.asarray(rate, np.float32), self.shape).copy()
        return replace(self, detector=replace(self.array, dark_rate=image, pedestal=pedestal))

    def with_flat(self, response: FloatImage) -> Shot:
        """The sensitivity of every pixel."""
        return replace(self, detector=replace(self.array, response=np.asarray(response, np.float32)))

    def with_detector(self, detector: Detector) -> Shot:
        """A whole array, cut to this frame's size."""
        return replace(self, detector=detector.cut(self.shape[0]))

    def with_cosmic_rays(self) -> Shot:
        return replace(self, cosmic=True)

    def with_pattern(self, amplitude: float) -> Shot:
        """Eight-column pattern noise, rms in ADU."""
        return replace(self, pattern=amplitude)

    def with_pointing_error(self, dx: float, dy: float) -> Shot:
        return replace(self, pointing_error=(dx, dy))

    def with_fault(self, fault: Fault | None = None, **wrong: Any) -> Shot:
        """Something wrong with this frame: a `Fault`, or its fields.

        Light, pointing and sharpness that the shot has by now are changed, so this comes last in a chain.
        """
        fault = fault or Fault(**wrong)
        if fault == NOTHING:
            return self
        light, clear = self.light * fault.sky, self.transparency * 10 ** (-0.4 * fault.cloud)
        if fault.saturated:
            light = OVERFULL * WELL[self.well] / self.exposure
        if fault.dead:
            light = clear = 0.0
        # What the header says moves, and the light stays where it was.
        (dx, dy), pa = fault.header, np.deg2rad(self.pa)
        east, north = (float(v) for v in self.header_pointing.cd @ (dx, dy))
        p, q = east * np.cos(pa) - north * np.sin(pa), east * np.sin(pa) + north * np.cos(pa)
        return replace(
            self,
            fault=fault,
            light=light,
            transparency=clear,
            fwhm=self.fwhm * fault.blur,
            offset=(self.offset[0] + float(p), self.offset[1] + float(q)),
            pointing_error=(self.pointing_error[0] + dx, self.pointing_error[1] + dy),
            cards=self.cards + fault.cards,
        )

    def with_cards(self, image: bool = False, **values: Any) -> Shot:
        """Header cards of one's own, in the primary or in the image header."""
        if image:
            return replace(self, image_cards=self.image_cards + tuple(values.items()))
        return replace(self, cards=self.cards + tuple(values.items()))

    @property
    def array(self) -> Detector:
        return self.detector or perfect_detector(self.shape)

    @property
    def end(self) -> datetime:
        return self.start + timedelta(
            seconds=self.coadds * (self.exposure + OVERHEAD_SECONDS[self.read_mode]) + 1.2
        )

    @property
    def header_pointing(self) -> Pointing:
        """The WCS as the header says it. Port 1 sees the sky mirrored (east right at position angle 0)."""
        pa = np.deg2rad(self.pa)
        sign = 1 if self.port == 1 else -1
        sx, sy = sign * PIXEL_SCALE_XY[0], PIXEL_SCALE_XY[1]
        cd = np.array([[sx * np.cos(pa), sy * np.sin(pa)], [sx * -np.sin(pa), sy * np.cos(pa)]]) + 0.0
        p, q = self.offset
        east, north = p * np.cos(pa) + q * np.sin(pa), -p * np.sin(pa) + q * np.cos(pa)
        ra, dec = offset_position(*self.target, float(east), float(north))
        ny, nx = self.shape
        x, y = (REFERENCE_PIXEL[0] - (ARRAY_SIZE - nx) / 2, REFERENCE_PIXEL[1] - (ARRAY_SIZE - ny) / 2)
        return Pointing(ra, dec, x, y, cd)

    @property
    def _offset_of_header(self) -> tuple[float, float]:
        (p, q), (more_p, more_q) = self.offset, self.header_offset
        return (p + more_p, q + more_q) if more_p or more_q else (p, q)

    @property
    def true_pointing(self) -> Pointing:
        nominal = self.header_pointing
        return nominal._replace(x=nominal.x + self.pointing_error[0], y=nominal.y + self.pointing_error[1])

    def light_rate(self) -> FloatImage:
        """Photo-electrons per second before the response of the pixels: sky or lamp, galaxy, stars."""
        image = np.full(self.shape, self.light, np.float32)
        if self.fault.gradient:
            image *= self.fault.tilt(self.shape)
        stars = self.sources
        if self.field:
            pointing = self.true_pointing
            zero_point = ZERO_POINTS[self.filter]
            x, y = pointing.pixels(self.field.ra, self.field.dec)
            rate = 10 ** (0.4 * (zero_point - self.field.mag))
            stars = np.concatenate([stars, np.stack([x, y, rate], axis=1)])
            if self.field.galaxy:
                for dx, dy, share in self.fault.smear:
                    moved = pointing._replace(x=pointing.x + dx, y=pointing.y + dy)
                    image += np.float32(share) * self._galaxy(self.field, moved)
        floor = 0.02 / (self.exposure * self.coadds)
        stars = smeared(stars * np.array([1, 1, self.transparency]), self.star_smear)
        if self.mover is not None:
            stars = np.concatenate([stars, smeared(self._mover(self.mover), self.mover_smear)])
        stars = smeared(stars, self.fault.smear)
        return image + render_stars(self.shape, stars, fwhm=self.fwhm, floor=floor)

    def _galaxy(self, field: Field, pointing: Pointing) -> FloatImage:
        """The field's galaxy where a pointing puts it, e-/s."""
        assert field.galaxy is not None
        centre = Pointing(*field.target, 0, 0, np.eye(2))
        east0, north0 = centre.pixels(np.array([pointing.ra]), np.array([pointing.dec]))
        east, north = pointing.offsets(self.shape)
        surface = field.galaxy.surface_brightness(
            east + np.float32(east0[0]), north + np.float32(north0[0]), ZERO_POINTS[self.filter]
        )
        return surface * np.float32(pointing.pixel_area * self.transparency)

    def _mover(self, mover: tuple[float, float, float]) -> Vector:
        """The moving source as a row (x, y, e-/s)."""
        x, y = self.true_pointing.pixels(np.array([mover[0]]), np.array([mover[1]]))
        rate = self.transparency * 10 ** (0.4 * (ZERO_POINTS[self.filter] - mover[2]))
        return np.stack([x, y, np.full_like(x, rate)], axis=1)

    def headers(self) -> tuple[fits.Header, fits.Header]:
        """The primary and the image header of the raw frame."""
        pointing, parked = self.header_pointing, self.kind not in OBSCLASSES
        if parked:
            pointing = pointing._replace(ra=cards.sidereal_degrees(self.start), dec=cards.LATITUDE)
        wheels = cards.WHEELS["blank" if self.kind == "dark" else self.filter]
        flat = self.kind.startswith("flat")
        label = f"{self.program}-{self.observation}"
        values: dict[str, Any] = {
            "OBJECT": {"dark": "Dark", "flaton": "GCALflat", "flatoff": "GCALflat"}.get(
                self.kind, self.object_name
            ),
            "OBSTYPE": OBSTYPES[self.kind],
            "OBSCLASS": OBSCLASSES.get(self.kind, "dayCal"),
            "GEMPRGID": self.program,
            "OBSID": label,
            "DATALAB": f"{label}-{self.number:03d}",
            "WAVELENG": wheels[3],
            **dict(zip(("FILTER1", "FILTER2", "FILTER3"), wheels, strict=False)),
            "CAMERA": "f6",
            "INPORT": self.port,
            "COADDS": self.coadds,
            "EXPTIME": self.exposure,
            "WINDCOVR": "closed" if self.kind == "dark" else "open",
            "PWFS2_ST": "parked" if parked else "guiding" if self.guided else "frozen",
            "SFRT2": 88.512 if parked else -91.319,
            "SFTILT": -45.03 if parked else 0.38,
            **cards.time_cards(self.start, self.end),
            **cards.wcs_cards(pointing),
            **cards.offset_cards(
                *(0.0, 0.0) if parked else self._offset_of_header,
                0.0 if parked else self.pa,
                270.0 if parked else 90.031 if self.port == 1 else 89.22,
            ),
            **cards.detector_cards(self.read_mode, self.well),
        }
        if flat:
            values |= {"GCALFILT": "ND2.0", "GCALSHUT": "CLOSED" if self.kind == "flatoff" else "OPEN"}
        if parked:
            values |= cards.parked_cards()
        else:
            values |= cards.sky_cards(*self.target, self.start, self.end, self.pa)
        values |= dict(self.cards)
        image = cards.window_cards(self.name, self.shape, 32 if self.dtype == "int32" else -32)
        return cards.build(values, image | dict(self.image_cards), flat=flat)

    def render(self, seed: int | np.random.SeedSequence) -> RawFrame:
        """The raw frame. The same shot and seed give the same pixels."""
        rng = np.random.Generator(np.random.SFC64(seed))
        array, seconds = self.array, self.exposure * self.coadds
        rate = array.dark_rate
        if self.kind != "dark" or self.fault.saturated:  # a dark is saturated by a light left on
            rate = rate + self.light_rate() * array.response
        hits = cosmic_rays(rng, self.shape, seconds) if self.cosmic else np.zeros(self.shape, np.float32)
        adu, saturated = read_out(
            rng,
            rate,
            hits,
            pedestal=array.pedestal + self.fault.add * GAIN,
            latent=self.latent,
            exposure=self.exposure,
            coadds=self.coadds,
            read_mode=self.read_mode,
            well=self.well,
        )
        if self.pattern:
            adu = np.rint(adu + column_pattern(rng, self.shape, self.pattern))
        if self.fault.constant is not None:
            adu = np.full_like(adu, self.fault.constant)
        pedestal = (array.pedestal + self.fault.add * GAIN) * self.coadds
        electrons = rate * np.float32(seconds) + np.float32(pedestal)
        return RawFrame(self, adu, electrons, saturated, hits, *self.headers())


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A raw frame and what is true of it, all images (ny, nx).

    adu : whole numbers, sum of coadds
    electrons : the noiseless content, all coadds: light, dark and pedestal, no residual images or hits
    saturated, hits : pixels at the well; electrons put in by cosmic rays
    """

    shot: Shot
    adu: FloatImage
    electrons: FloatImage
    saturated: BoolImage
    hits: FloatImage
    phu: fits.Header
    ext: fits.Header

    def write(self, path: Path) -> None:
        """Write the file as the observatory does, two headers and one image; it appears whole, by rename."""
        write_fits(path, [(self.phu, None), (self.ext, self.adu.astype(f">{self.shot.dtype[0]}4"))])
