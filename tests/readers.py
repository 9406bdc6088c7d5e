"""Products opened as an astronomer would, with every warning an error."""

import shutil
import subprocess
import warnings

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.table import QTable
from astropy.time import Time
from astropy.wcs import WCS

FITSVERIFY = shutil.which("fitsverify")


def complaints(path):
    """What fitsverify has against a file, where it is installed."""
    if FITSVERIFY is None:
        return []
    done = subprocess.run([FITSVERIFY, str(path)], capture_output=True, text=True)
    fine = "found 0 warning(s) and 0 error(s)" in done.stdout
    return [] if fine else [line for line in done.stdout.splitlines() if line.startswith("***")]


def read_by_all(path, times=True):
    """The image as CCDData, after every reader has opened the file without a word."""
    found = complaints(path)
    assert not found, found
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            names = [hdu.name for hdu in hdus]
            assert hdus[0].header["NEXTEND"] == len(hdus) - 1
            assert "EPOCH" not in hdus[0].header
            Time(hdus[0].header["DATE"], format="fits")
            for hdu in hdus[1:]:
                assert (hdu.header["EXTNAME"], hdu.header["EXTVER"]) == (hdu.name, 1)
                if isinstance(hdu, fits.ImageHDU):
                    if times:
                        _times(hdu.header)
                    WCS(hdu.header)
                    u.Unit(hdu.header["BUNIT"])
        tables = [name for name in names[1:] if name not in ("SCI", "VAR", "DQ", "COVERAGE", "OBJMASK")]
        for name in tables:
            assert len(QTable.read(path, hdu=name))
        planes = {"hdu_uncertainty": "VAR", "hdu_mask": "DQ"} if "VAR" in names else {}
        image = CCDData.read(path, hdu="SCI", **planes)
    if "VAR" in names:
        assert isinstance(image.uncertainty, VarianceUncertainty)
        assert image.uncertainty.unit == image.unit**2
        assert np.array_equal(image.mask, fits.getdata(path, "DQ") != 0)
    return image


def _times(header):
    begin, middle = Time(header["MJD-OBS"], format="mjd"), Time(header["MJD-AVG"], format="mjd")
    assert abs((Time(header["DATE-OBS"], format="fits") - begin).to_value(u.s)) < 0.01
    assert abs((Time(header["DATE-AVG"], format="fits") - middle).to_value(u.s)) < 0.01
    assert (middle - begin).to_value(u.s) >= header["EXPTIME"] / 2 - 0.01
