"""World coordinates in other spellings: astropy, which knows them all, says where the pixels are."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.errors import BadFrame
from pipeline.headers.merged import merge
from pipeline.headers.tangent import tangent
from pipeline.headers.values import sane_wcs
from pipeline.headers.wcscards import READ, REFUSED, standard
from pipeline.steps.prepare import prepare
from tests.skyframes import calibrated

S = 0.117 / 3600
ANGLE = np.radians(20)
TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
PLACE = {"CRPIX1": 500.5, "CRPIX2": 480.0, "CRVAL1": 148.9, "CRVAL2": 69.7}
CD = {
    "CD1_1": -S * np.cos(ANGLE), "CD1_2": S * np.sin(ANGLE),
    "CD2_1": S * np.sin(ANGLE), "CD2_2": S * np.cos(ANGLE),
}  # fmt: skip
PLAIN = {**TAN, **PLACE, **{key: float(value) for key, value in CD.items()}}
PC = {key.replace("CD", "PC"): value / S for key, value in CD.items()}
STEPS = {"CDELT1": S, "CDELT2": S}
NAXIS = {"NAXIS": 2, "NAXIS1": 1024, "NAXIS2": 1024}
SIP = {**TAN, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}

SPELLINGS = {
    "text": {**TAN, **{key: str(value) for key, value in {**PLACE, **CD}.items()}},
    "D exponents": {**PLAIN, **{key: f"{value:.15e}".replace("e", "D") for key, value in CD.items()}},
    "PC and CDELT": {**TAN, **PLACE, **PC, **STEPS},
    "PC alone": {**TAN, **PLACE, **{key.replace("CD", "PC"): value for key, value in CD.items()}},
    "PC in part": {**TAN, **PLACE, "PC1_1": -1.0, "CDELT1": S, "CDELT2": S},
    "old PC": {**TAN, **PLACE, **{f"PC00{k[2]}00{k[4]}": v for k, v in PC.items()}, **STEPS},
    "CDELT": {**TAN, **PLACE, "CDELT1": -S, "CDELT2": S},
    "CDELT and CROTA2": {**TAN, **PLACE, "CDELT1": -S, "CDELT2": S, "CROTA2": 33.0},
    "CDELT, CROTA2 as text": {**TAN, **PLACE, "CDELT1": str(-S), "CDELT2": str(S), "CROTA2": "33.0"},
    "CD in part": {**TAN, **PLACE, "CD1_1": -S, "CD2_2": S},
    "CD with CDELT and CROTA2": {**PLAIN, "CDELT1": 1.0, "CDELT2": 1.0, "CROTA2": 12.0},
    "CD and the same PC": {**PLAIN, **PC, **STEPS},
    "arcsec": {**TAN, **PLACE, "CRVAL1": 148.9 * 3600, "CRVAL2": 69.7 * 3600,
               "CUNIT1": "arcsec", "CUNIT2": "arcsec", **{key: value * 3600 for key, value in CD.items()}},
    "LONPOLE": {**PLAIN, "LONPOLE": 170.0},
    "weak SIP": {**PLAIN, **SIP, "A_2_0": 1e-6, "B_0_2": -1e-6, "A_1_1": 5e-7},
    "SIP without its name": {**PLAIN, "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-6, "B_0_2": -1e-6},
    "SIN": {**PLAIN, "CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"},
    "ARC": {**PLAIN, "CTYPE1": "RA---ARC", "CTYPE2": "DEC--ARC"},
    "TPV": {**PLAIN, "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV",
            "PV1_1": 1.0001, "PV2_1": 1.0001, "PV1_0": 1e-5},
    "PV of scamp": {**PLAIN, "PV1_0": 1e-5, "PV1_1": 1.0001, "PV1_2": 0.0, "PV2_0": 0.0, "PV2_1": 1.0,
                    "PV2_2": 0.0, "PV1_4": 1e-4, "PV2_4": 0.0, "PV1_5": 0.0, "PV2_5": 0.0},
}  # fmt: skip


def places(cards):
    """(ra, dec) of some pixels, by astropy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header()
        for key, value in cards.items():
            number = isinstance(value, str) and not key.startswith(("CTYPE", "CUNIT"))
            header[key] = float(value.replace("D", "E")) if number else value
        return WCS(header).all_pix2world(*np.meshgrid([0, 500, 1023], [0, 400, 1023]), 0)


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("where", ["image", "primary"])
def test_every_spelling_is_read_as_astropy_does(name, where):
    given = {**NAXIS, **SPELLINGS[name]}
    cards = merge({}, given) if where == "image" else merge(given, {})
    assert sane_wcs(cards)
    assert not {key for key in cards if key.startswith(("PC", "PV", "CDELT", "CROTA", "A_", "B_", "LONPOLE"))}
    assert (cards["CTYPE1"], cards["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
    wcs = tangent(cards)
    x, y = wcs.to_pixel(*places(given))
    gx, gy = np.meshgrid([0, 500, 1023], [0, 400, 1023])
    bent = READ in cards
    assert np.hypot(x - gx, y - gy).max() < (0.5 if bent else 1e-4)
    assert bent == (
        name in ("LONPOLE", "weak SIP", "SIP without its name", "SIN", "ARC", "TPV", "PV of scamp")
    )


def test_geminis_own_spelling_is_passed_on_as_it_is():
    for cards in (
        PLAIN,
        {**PLAIN, "CUNIT1": "deg", "CUNIT2": "deg"},
        {**PLAIN, "LONPOLE": 180.0},
        {"OBJECT": "x"},
    ):
        assert standard(cards) is cards


REFUSED_ONES = {
    "strong SIP": {**PLAIN, **SIP, "A_2_0": 1e-4},
    "galactic": {**PLAIN, "CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
    "pixels": {**PLAIN, "CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
    "unknown projection": {**PLAIN, "CTYPE1": "RA---QQQ", "CTYPE2": "DEC--QQQ"},
    "unit": {**PLAIN, "CUNIT1": "furlong"},
    "a coefficient that is none": {**PLAIN, **SIP, "A_2_0": "much"},
    "a table": {**PLAIN, "CPDIS1": "LOOKUP"},
}


@pytest.mark.parametrize("name", REFUSED_ONES)
def test_what_cannot_be_read_is_refused_with_the_reason(name):
    cards = merge({}, {**NAXIS, **REFUSED_ONES[name]})
    assert not sane_wcs(cards)
    assert cards[REFUSED]
    assert not {key for key in cards if key.startswith(("CTYPE", "CUNIT", "CD", "A_", "B_", "CPDIS"))}
    good = merge(PLAIN, {**NAXIS, **REFUSED_ONES[name]})  # the copy in the primary header
    assert sane_wcs(good)
    assert good[READ].startswith(f"primary header's used; image's: {cards[REFUSED]}"[:60])
    frame = calibrated(1, size=64)
    odd = frame.evolve(cards={"PREPARE": None, "CTYPE1": None, REFUSED: cards[REFUSED]})
    with pytest.raises(BadFrame) as caught:
        prepare.run([odd], bad_wcs="exit")
    assert cards[REFUSED] in str(caught.value)


def test_cd_and_another_pc_are_read_as_astropy_does_and_told():
    cards = {**PLAIN, **PC, "CDELT1": 2 * S, "CDELT2": 2 * S}
    read = merge({}, cards)
    assert "disagree" in read[READ]
    x, _ = tangent(read).to_pixel(*places(cards))
    np.testing.assert_allclose(x[0], [0, 500, 1023], atol=1e-4)


def test_two_headers_that_disagree_are_told_and_the_image_counts():
    moved = {**PLAIN, "CRVAL2": 69.7 + 25 / 3600}
    cards = merge(PLAIN, moved)
    assert cards["CRVAL2"] == moved["CRVAL2"]
    assert "25.0 arcsec" in cards[READ]
    assert READ not in merge(PLAIN, PLAIN)
    assert READ not in merge(PLAIN, {**PLAIN, "CRVAL2": 69.7 + 0.5 / 3600})
    assert "matrix 100 %" in merge(PLAIN, {**PLAIN, **{key: value / 2 for key, value in CD.items()}})[READ]


@pytest.mark.parametrize("cards", [{"CD1_1": -3e-55}, {"CRPIX1": 1e9}, {"CRPIX2": -1e6}, {"CRVAL2": 95.0}])
def test_the_copy_in_the_primary_header_stands_for_one_that_makes_no_sense_and_it_is_told(cards):
    read = merge(PLAIN, {**PLAIN, **cards})
    assert {key: read[key] for key in PLAIN} == PLAIN
    assert read[READ] == "primary header's used; image's: no scale of a camera"
    assert READ not in merge(PLAIN, {"NAXIS": 2})
    assert not sane_wcs(merge({}, {**PLAIN, **cards}))


def test_what_was_read_is_a_note_of_the_frame():
    frame = calibrated(1, size=64)
    header = fits.Header([(k, v) for k, v in frame.header.items() if k != "PREPARE"])
    header[READ] = "headers differ by 25.0 arcsec"
    (done,) = prepare.run([frame.evolve(header=header)])
    assert any("headers differ by 25.0 arcsec" in note for note in done.notes)
