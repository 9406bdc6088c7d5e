"""A night whose looks and products are real files with real pictures, made in a moment and not reduced.

    daemon = daemons(engine=Pixels(), looks=True)

Every image shows one sky: stars of known places behind coordinates that are turned by ten degrees, each frame
at another pointing. Of both kinds some pixels are flagged, the corners among them.
"""

import shutil
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from docs import screenshots
from pipeline.files import preview
from pipeline.files.write import write_product
from pipeline.frame import Frame
from tests.fitsfiles import DARK
from tests.night import Daemon, FakeEngine, static_bpm

UNLIT = "N20160102S0274.fits"  # its shutter was closed, in a `Night`
SCALE = 0.117 / 3600
ANGLE = np.radians(10.0)
CD = SCALE * np.array([[-np.cos(ANGLE), np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
CENTRE = (148.92, 69.67)
LOOK, STACK = (200, 220), (260, 240)  # (ny, nx)
SKY = 3000.0  # electrons, in a look; a stack has none
NOISE = {"look": 20.0, "stack": 6.0}
STARS = [(0.0, 0.0, 9000.0), (4.0, -5.0, 3000.0), (-6.0, 4.0, 1500.0), (-3.0, -7.0, 700.0), (7.0, 6.0, 400.0)]


def wcs(ny, nx, dx=0.0, dy=0.0):
    """Coordinates whose centre is in the middle of these pixels, or dx, dy pixels beside it."""
    found = WCS(naxis=2)
    found.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    found.wcs.crval, found.wcs.cd = CENTRE, CD
    found.wcs.crpix = (nx / 2 + dx, ny / 2 + dy)
    return found


def image(shape, place, *, level, noise, seed):
    """(sci, dq) of the stars on a level, with noise."""
    ny, nx = shape
    sci = np.random.default_rng(seed).normal(level, noise, shape).astype("f4")
    rows, columns = np.indices(shape)
    for xi, eta, flux in STARS:  # arcsec east and north of the centre
        ra = CENTRE[0] + xi / 3600 / np.cos(np.radians(CENTRE[1]))
        x, y = place.all_world2pix(ra, CENTRE[1] + eta / 3600, 0)
        sci += flux * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / 2.5**2).astype("f4")
    dq = np.zeros(shape, "u2")
    dq[0, 0], dq[-1, -1], dq[ny // 2, nx // 2 + 7] = 1, 4 | 8, 2
    dq[:, :3] |= 16 if level == 0 else 0
    return sci, dq


def frame_of(name, number, *, lit=True, version=1):
    """What a worker would have made. number : of its last frame; lit : False where its shutter was closed"""
    cards = {**DARK, "OBSTYPE": "OBJECT", "OBJECT": "SN", "FILTER1": "J_G0202", "FILTER3": "pupil38_G5207"}
    if not name.endswith(("_firstlook", "_running", "_image")):
        kind = name.rpartition("_")[2].upper()
        sci = np.random.default_rng(number).normal(1, 0.1, LOOK).astype("f4")
        return Frame(
            sci=sci, dq=np.zeros(LOOK, "u2"), var=np.full(LOOK, 0.01, "f4"), unit="adu", name=f"{name}.fits",
            header=fits.Header(list({**DARK, "OBSTYPE": kind}.items())),
        )  # fmt: skip
    look = name.endswith("_firstlook")
    shape, seed = (LOOK, number) if look else (STACK, 1000 + version)
    place = wcs(*shape, *((number % 5 - 2.0, 0.4 * (number % 7)) if look else (0.0, 0.0)))
    noise = NOISE["look" if look else "stack"]
    sci, dq = image(shape, place, level=SKY if look else 0.0, noise=noise, seed=seed)
    if not lit:
        sci = np.random.default_rng(number).normal(0, 5, shape).astype("f4")
        cards |= {"VERDICT": "left out", "VREASON": "no light: closed shutter?"}
    cards |= {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": CENTRE[0], "CRVAL2": CENTRE[1]}
    cards |= {f"CRPIX{n + 1}": float(place.wcs.crpix[n]) for n in (0, 1)}
    cards |= {f"CD{n + 1}_{m + 1}": float(CD[n, m]) for n in (0, 1) for m in (0, 1)}
    return Frame(
        sci=sci, dq=dq, var=np.full(shape, noise**2, "f4"), unit="electron", name=f"{name}.fits",
        header=fits.Header(list(cards.items())),
        coverage=None if look else np.ones(shape, "u2"),
    )  # fmt: skip


class Pixels(FakeEngine):
    """Stages what `frame_of` says. dark : names of frames whose shutter was closed"""

    def __init__(self, *, dark=()):
        super().__init__()
        self.dark, self.staged = set(dark), 0

    def stage(self, spec):
        result = super().stage(spec)
        self.staged += 1
        newest = spec.inputs[-1].name
        number = int(newest.partition("S")[2][:4])
        frame = frame_of(spec.name, number, lit=newest not in self.dark, version=self.staged)
        Path(result["fits"]).unlink()
        result["sha256"] = write_product(
            result["fits"], frame, provenance=[(i.name, i.file_sha, "input") for i in spec.inputs],
            history=[("reduce", {}, "nirid")], time_stamp=spec.time_stamp, cards={"JOBKEY": spec.key},
        )  # fmt: skip
        preview.write_preview(result["png"], frame, job=spec.key)
        return result


class Night:
    """Where a night lies: its state folder, its products, and the configuration that says so."""

    def __init__(self, folder, *, records, seconds, reject=""):
        (folder / "made").mkdir()
        daemon = Daemon(folder / "made", engine=Pixels(dark=[UNLIT]), looks=True)
        daemon.land(*records, static_bpm())
        daemon.run(seconds, 0.5 if seconds < 10 else 10)
        if reject:
            daemon.decide("reject", reject, reason="trailed")
            daemon.run(600)
        daemon.close()
        self.products, self.state = daemon.products, folder / "state"
        self.state.mkdir()
        shutil.copy(folder / "made" / "nirid.db", self.state)
        self.config = folder / "nirid.toml"
        self.config.write_text(f"[products]\nfolder = '{self.products}'\n")

    def served(self):
        return screenshots.served(self.state, "--port", "0", config=self.config)

    def path(self, name):
        return next(path for path in self.products.rglob(f"{name}.fits"))
