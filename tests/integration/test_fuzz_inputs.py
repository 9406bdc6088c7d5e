"""Headers, pixels, lists, parameters and masks mutated at random: no traceback, nothing forbidden taken in
silence, every product whole, and every input the same bytes afterwards.

NIRID_FUZZ=1000 tries as many examples of each test; the suite a few.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.arrivals.read import ingest
from pipeline import Reduce, cal_service, dataselect, logutils
from pipeline.errors import NiridError, OverrideError
from pipeline.files.read import read_frame
from pipeline.headers.merged import FACT_CARDS
from pipeline.params import coerce
from pipeline.toolkit.expression import expr_parser
from pipeline.toolkit.tokens import ExpressionError
from tests.fitsfiles import DARK, header_bytes, image_bytes

COUNT = int(os.environ.get("NIRID_FUZZ", "12"))
FUZZ = settings(
    max_examples=COUNT,
    deadline=None,
    derandomize="NIRID_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
SIZE = 64
SCALE = 0.117 / 3600
OBJECT = {
    **DARK, "OBSTYPE": "OBJECT", "OBSCLASS": "science", "OBJECT": "M82", "FILTER1": "Kprime_G0206",
    "FILTER3": "open", "EXPTIME": 20.002, "RA": 148.9, "DEC": 20.0, "PA": 0.0, "INPORT": 3, "AIRMASS": 1.2,
}  # fmt: skip
SKIP = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
KINDS = {"dark": (DARK, {}, 3), "science": (OBJECT, SKIP, 4)}


def wcs(number):
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CRPIX1": 32.5 + 9.0 * (number % 2), "CRPIX2": 32.5 + 7.0 * (number // 2),
        "CRVAL1": 148.9, "CRVAL2": 20.0, "CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE,
    }  # fmt: skip


def exposure(cards, number):
    """(primary cards, image cards, pixels) of one of a sequence."""
    rng = np.random.default_rng(number)
    phu = {
        **cards, "DATALAB": f"GN-2015B-Q-31-1-{number:03d}", "UT": f"06:0{number}:00.0",
        "POFFSET": -9.0 * (number % 2) * 0.117, "QOFFSET": -7.0 * (number // 2) * 0.117, **wcs(number),
    }  # fmt: skip
    pixels = rng.normal(1000.0, 5.0, (SIZE, SIZE))
    for x, y in ((20, 20), (40, 30), (30, 45)):
        yy, xx = np.mgrid[:SIZE, :SIZE]
        x0, y0 = x + 9.0 * (number % 2), y + 7.0 * (number // 2)
        pixels += (cards["OBSTYPE"] == "OBJECT") * 900 * np.exp(-((xx - x0) ** 2 + (yy - y0) ** 2) / 5)
    return phu, wcs(number), pixels.astype("f4")


def write(path, phu, image, pixels):
    head = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True, **phu})
    path.write_bytes(head + image_bytes(pixels, image))


VALUES = st.one_of(
    st.just(None),
    st.sampled_from([0, -1, 1, 2, 10**15, 0.0, -0.0, 1e300, -1e300, 5e-324, 1e-3, True, False]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**6), 10**6),
    st.sampled_from(
        ["", " ", "NaN", "inf", "0", "20.002", "1.5D2", "Unknown", "None", "2016/01/02", "2016-13-45",
         "12:00:00",
         "24:61:99", "+00:00", "RA---TAN-SIP", "deg", "f6", "f14", "H_G0203", "open", "grism", "N", "x" * 60,
         "a/../../b", "%s%n", "'", "M31: 0.5"]),
    st.text("abc 123.-+:/&", max_size=12),
)  # fmt: skip
# Cards that say what a frame is: a change of these makes a mixture, which has a test of its own.
IDENTITY = {"INSTRUME", "OBSTYPE", "OBJECT", "FILTER1", "FILTER2", "FILTER3", "CAMERA"}
CARDS = sorted(({*FACT_CARDS, *wcs(0), "PC1_1", "CDELT1", "CDELT2", "CROTA2", "A_ORDER", "A_2_0", "PV1_1"} | {
    "BLANK", "BSCALE", "BZERO", "CUNIT1", "OBJFRAME"}) - IDENTITY - {"NAXIS1", "NAXIS2"})  # fmt: skip
CHANGES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["phu", "image"]), st.sampled_from(CARDS), VALUES),
    max_size=6,
)
SENTINELS = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -3e38, -(2.0**31), -32768.0, 0.0])
HOLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 63), st.integers(1, 64), SENTINELS), max_size=3)


@contextlib.contextmanager
def place():
    """An empty working folder."""
    here = Path(tempfile.mkdtemp(prefix="nirid-fuzz-"))
    try:
        with contextlib.chdir(here), pytest.MonkeyPatch.context() as patch:
            patch.delenv("NIRIDRC", raising=False)
            patch.setenv("HOME", str(here))
            patch.setattr(cal_service, "_loaded", None)
            logutils.config(mode="quiet")
            yield here
    finally:
        logutils.config()
        shutil.rmtree(here)


def digests(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def attempt(**given):
    """The products; None where it was refused in one clear line."""
    reduction = Reduce(**given)
    said = ""
    try:
        reduction.runr()
    except OverrideError as error:  # a line for each
        said = str(error).partition("\n")[0]
    except NiridError as error:
        said = str(error)
    assert bool(said.strip()) == (reduction.output_filenames is None)
    assert "\n" not in said.strip()
    return reduction.output_filenames


def whole(path):
    """What every product keeps to."""
    frame = read_frame(Path(path))
    good = frame.dq == 0
    assert np.isfinite(frame.sci).all()
    assert np.abs(frame.sci[good]).max(initial=0) < 2.0e9
    assert frame.var is None or (np.isfinite(frame.var).all() and (frame.var >= 0).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits.getheader(path).tostring()


@FUZZ
@given(st.sampled_from(sorted(KINDS)), CHANGES, HOLES, st.sampled_from(["nirid", "dragons"]))
def test_headers_and_pixels(kind, changes, holes, preset):
    cards, uparms, count = KINDS[kind]
    with place() as here:
        (here / "raw").mkdir()
        frames = [exposure(cards, number) for number in range(count)]
        for number, where, key, value in changes:
            header = frames[number % count][where == "image"]
            header.pop(key, None)
            if value is not None:
                header[key] = value
        for number, first, length, value in holes:
            frames[number % count][2][first : first + length] = value
        for number, frame in enumerate(frames):
            write(here / "raw" / f"x_{number}.fits", *frame)
        before = digests(here / "raw")
        for path in before:
            assert ingest(str(path), patience="batch").state
        made = attempt(files=[str(path) for path in before], uparms=uparms, preset=preset)
        assert digests(here / "raw") == before
        for path in made or ():
            whole(path)
        assert not [p for p in here.iterdir() if p.name.startswith(".") or (p.suffix == ".fits" and not made)]


# What one frame among others may not be: never a product, whatever else is said.
FORBIDDEN = {
    "dark": [{"OBSTYPE": "FLAT"}, {"OBSTYPE": "OBJECT"}, {"OBSTYPE": "ARC"}, {"INSTRUME": "GNIRS"},
             {"INSTRUME": ""}, {"EXPTIME": 0.0}, {"EXPTIME": -3.0}, {"EXPTIME": "NaN"}, {"EXPTIME": 5.0},
             {"COADDS": 7}, {"LNRS": 16}, {"A_VDDUC": -2.93}],
    "science": [{"OBSTYPE": "FLAT"}, {"OBSTYPE": "DARK"}, {"OBSTYPE": "ARC"}, {"INSTRUME": "GNIRS"},
                {"FILTER1": "H_G0203"}, {"CAMERA": "f14"}, {"CAMERA": "f32"}, {"FILTER3": "Hgrism_G5203"},
                {"EXPTIME": 0.0}, {"EXPTIME": "none"}],
}  # fmt: skip


@FUZZ
@given(st.data(), st.sampled_from(sorted(KINDS)), st.integers(1, 3))
def test_a_frame_that_does_not_belong_makes_no_product(data, kind, which):
    cards, uparms, count = KINDS[kind]
    odd = data.draw(st.sampled_from(FORBIDDEN[kind]))
    with place() as here:
        (here / "raw").mkdir()
        for number in range(count):
            phu, image, pixels = exposure(cards, number)
            write(
                here / "raw" / f"x_{number}.fits",
                {**phu, **(odd if number == min(which, count - 1) else {})},
                image,
                pixels,
            )
        before = digests(here / "raw")
        assert attempt(files=[str(path) for path in before], uparms=uparms) is None
        assert digests(here / "raw") == before
        assert not list(here.glob("*.fits"))


@FUZZ
@given(
    st.sampled_from(["u1", "i2", "i4", "f4", "f8"]),
    st.data(),
    st.one_of(st.integers(1, 80), st.sampled_from([64, 256])),
    st.booleans(),
)
def test_masks(kind, data, size, tagged):
    number = (
        st.floats(width=32) if kind[0] == "f"
        else st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    )  # fmt: skip
    value = data.draw(st.one_of(st.sampled_from([0, 1, 5, 64]), number))
    mask = np.zeros((size, size), kind)
    mask[0, 0] = value
    with place() as here, np.errstate(all="ignore"):
        write(here / "raw.fits", *exposure(DARK, 0))
        write(here / "m.fits", {**DARK, **({"BPMASK": True} if tagged else {})}, {}, mask)
        before = digests(here)
        made = attempt(files=["raw.fits"], uparms={"addDQ:user_bpm": "m.fits"})
        fits_in = size in (SIZE, 256)  # the frame's, or an array setting, of which the middle is cut
        is_bits = bool(np.isfinite(value)) and 0 <= value < 65536 and float(value).is_integer()
        assert (made is not None) == (tagged and fits_in and is_bits)
        if made and size == SIZE:
            assert fits.getdata(made[0], "DQ")[0, 0] & int(value) == int(value)
        assert {path: sha for path, sha in digests(here).items() if path in before} == before


NAMES = st.sampled_from(
    ["hsigma", "stackDarks:hsigma", "stackDarks:operation", "addDQ:latency", "addDQ:user_bpm", "x", ":", "",
     "prepare:bad_wcs", "judgeFrames:accept", "stackDarks:skip_primitive", "addDQ:write_outputs", "a:b:c",
     "stackDarks:max_iters"]
)  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.lists(st.text(max_size=4), max_size=2), st.just(np.float64(3)), st.just(np.int16(3)), st.just(10**400),
    st.just(Path("x.fits")),
    st.just(np.bool_(True)), st.just(np.zeros(3)), st.just(object()),
)  # fmt: skip


@FUZZ
@given(st.dictionaries(NAMES, ODD, max_size=3), ODD)
def test_parameters(uparms, value):
    with place() as here:
        for number in range(3):
            write(here / f"x_{number}.fits", *exposure(DARK, number))
        before = digests(here)
        made = attempt(files=sorted(map(str, before)), uparms=uparms)
        assert {path: sha for path, sha in digests(here).items() if path in before} == before
        for path in made or ():
            whole(path)
    for kind in (bool, int, float, str, str | None, tuple[str, ...]):
        with contextlib.suppress(ValueError):
            taken = coerce(kind, value)
            assert taken is None or isinstance(taken, bool | int | float | str | tuple)


@FUZZ
@given(
    st.lists(
        st.one_of(
            st.text(max_size=10),
            st.sampled_from(["x_0.fits", "x_1.fits", "m.fits", ".", "x_0.fits.gz", "\0"]),
        ),
        max_size=6,
    )
)
def test_lists(names):
    with place() as here:
        for number in range(2):
            write(here / f"x_{number}.fits", *exposure(DARK, number))
        (here / "m.fits").write_bytes(b"SIMPLE  =" + bytes(100))
        before = digests(here)
        given_names = set(names) & {"x_0.fits", "x_1.fits"}
        made = attempt(files=names)
        assert (made is not None) == bool(given_names)
        if made:
            assert read_frame(Path(made[0])).header.get("NCOMBINE", 1) == len(given_names)
        assert {path: sha for path, sha in digests(here).items() if path in before} == before


WORDS = st.sampled_from(
    ["exposure_time", "filter_name", "tags", "and", "or", "not", "in", "(", ")", "[", "]", ",", "==", "!=",
     "<", ">=", '"H"', "'", "20", "1e999", "-1e-999", "2016-01-02", "25:00:00", "2016-13-01 10:00:00",
     "None", "True", "nan", "é"]
)  # fmt: skip


@settings(FUZZ, max_examples=20 * COUNT)
@given(st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=20)))
def test_expressions(text):
    with place() as here:
        write(here / "x.fits", *exposure(DARK, 0))
        chosen = []
        with contextlib.suppress(ExpressionError):
            chosen = dataselect.select_data(["x.fits"], [], [], expr_parser(text))
        assert chosen in ([], ["x.fits"])
