"""prepare: header values, and what becomes of a frame whose WCS is wrong."""

import math

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import BadFrame, NotEnoughFrames
from pipeline.frame import Frame
from pipeline.steps.prepare import nominal_wcs, prepare

SCALE = 0.1171


def frame(number: int, p: float = 0.0, q: float = 0.0, **cards) -> Frame:
    """A K' frame offset by (p, q) arcsec whose WCS has followed the telescope."""
    s = SCALE / 3600
    port = cards.get("INPORT", 5)
    flip = -1.0 if port == 1 else 1.0
    header = {
        "INSTRUME": "NIRI", "OBSERVAT": "Gemini-North", "OBSTYPE": "OBJECT", "OBSID": "GN-1-1",
        "CAMERA": "f6",
        "FILTER1": "Kprime_G0206", "FILTER2": "open", "FILTER3": "pupil38_G5207", "LNRS": 1, "NDAVGS": 16,
        "A_VDDUC": -3.4065, "A_VDET": -2.8072, "EXPTIME": 10.001, "COADDS": 2, "FRAME": "FK5",
        "RATRACK": 0.0, "DECTRACK": 0.0, "RA": 150.0, "DEC": 20.0, "EPOCH": 2000.0, "PA": 0.0, "INPORT": port,
        "DATE-OBS": "2016-01-02", "UT": f"06:{number:02d}:00", "POFFSET": p, "QOFFSET": q,
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0,
        "CRPIX1": 32.5 + flip * p / SCALE, "CRPIX2": 32.5 - q / SCALE,
        "CD1_1": -flip * s, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": s,
    }  # fmt: skip
    header.update(cards)
    plane = np.zeros((64, 64), np.float32)
    name = f"N20160102S{number:04d}.fits"
    return Frame(plane, np.zeros((64, 64), np.uint16), fits.Header(header), "adu", name)


DITHER = ((0, 0), (6, 0), (6, 6), (-6, 3))


def dither(**cards):
    return [frame(i, p, q, **cards) for i, (p, q) in enumerate(DITHER)]


def test_header_values():
    (ready,) = prepare.run([frame(0)])
    found = {
        key: ready.header[key] for key in ("EXPTIME", "GAIN", "RDNOISE", "SATLEVEL", "NONLINEA", "BUNIT")
    }
    assert found == {
        "EXPTIME": pytest.approx(20.002),
        "GAIN": 12.3,
        "RDNOISE": pytest.approx(35 * math.sqrt(2)),
        "SATLEVEL": 32520,
        "NONLINEA": 22764,
        "BUNIT": "adu",
    }
    assert ready.header["FILTER"] == "K(prime)"
    assert ready.header["ORIGNAME"] == "N20160102S0000.fits"
    assert ready.descriptors.exposure_time == pytest.approx(20.002)
    assert ready.header["PREPARE"] == "2016-01-02T06:00:20.002"


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        ({"BUNIT": "electron"}, ["BUNIT is 'electron'; a raw frame is in adu"]),
        ({"BUNIT": "ADU"}, []),
        ({"DATE-OBS": "", "UT": "", "NAME": "x"}, ["no time of the exposure in its header"]),
        ({"LNRS": 3, "A_VDDUC": 9.0}, ["no read mode has (LNRS, NDAVGS) = (3, 16)", "well depth is unknown"]),
    ],
)
def test_what_is_assumed_is_told(cards, told):
    (ready,) = prepare.run([frame(0, **cards).evolve(name=cards.get("NAME", "N1.fits"))])
    assert len(ready.notes) == len(told)
    assert all(text in note for text, note in zip(told, ready.notes, strict=True))


def test_preparing_twice_changes_nothing():
    (once,) = prepare.run([frame(0)])
    (twice,) = prepare.run([once])
    assert twice.header == once.header


def test_good_frames_keep_their_wcs():
    ready = prepare.run(dither())
    assert len(ready) == 4
    assert not any(f.notes for f in ready)
    assert all(a.header["CRPIX1"] == b.header["CRPIX1"] for a, b in zip(ready, dither(), strict=True))


@pytest.mark.parametrize("port", [1, 5])
@pytest.mark.parametrize("angle", [0.0, 30.0, 200.0])
def test_nominal_wcs_has_north_at_the_position_angle_and_the_field_where_the_offset_put_it(port, angle):
    moved = frame(0, 5.0, -3.0, PA=angle, INPORT=port)
    wcs = moved.evolve(cards=nominal_wcs(moved)).wcs
    y0 = wcs.pixel_to_world(31.5, 31.5)
    y1 = wcs.pixel_to_world(31.5, 32.5)
    x1 = wcs.pixel_to_world(32.5, 31.5)
    assert y0.position_angle(y1).wrap_at("360d").deg == pytest.approx(angle, abs=1e-3)
    east = angle + (90 if port == 1 else -90)
    assert y0.position_angle(x1).wrap_at("360d").deg == pytest.approx(east % 360, abs=1e-3)
    centred = frame(0, PA=angle, INPORT=port)
    home = centred.evolve(cards=nominal_wcs(centred)).wcs
    x, y = home.world_to_pixel(wcs.pixel_to_world(31.5, 31.5))
    flip = -1 if port == 1 else 1
    assert (x - 31.5, y - 31.5) == pytest.approx((-flip * 5.0 / SCALE, -3.0 / SCALE), abs=0.01)


def test_wcs_that_did_not_follow_the_telescope_is_mended_from_the_base():
    frames = dither()
    home = frames[0].header
    frames[1] = frames[1].evolve(cards={"CRPIX1": home["CRPIX1"], "CRPIX2": home["CRPIX2"]})
    ready = prepare.run(frames)
    assert ready[1].header["CRPIX1"] == pytest.approx(dither()[1].header["CRPIX1"])
    assert "the telescope moved by 51 pixels" in ready[1].notes[0]
    with pytest.raises(
        BadFrame, match=r"N20160102S0001.fits: the telescope moved by 51 pixels, its WCS by 0"
    ):
        prepare.run(frames, bad_wcs="exit")
    (ignored,) = [f for f in prepare.run(frames, bad_wcs="ignore") if f.root.endswith("1")]
    assert ignored.header["CRPIX1"] == home["CRPIX1"]


def test_wcs_that_moved_the_other_way_is_mended():
    frames = dither()
    wrong = 32.5 - 6 / SCALE
    frames[1] = frames[1].evolve(cards={"CRPIX1": wrong})
    ready = prepare.run(frames)
    assert ready[1].header["CRPIX1"] == pytest.approx(dither()[1].header["CRPIX1"])


@pytest.mark.parametrize("missing", [{"CD1_1": 1.0, "CD2_2": 1.7}, {"CD1_1": None}, {"CTYPE1": None}])
def test_absent_wcs_is_made_from_the_header(missing):
    frames = [f.evolve(cards=missing) for f in dither()]
    ready = prepare.run(frames)
    for made, good in zip(ready, dither(), strict=True):
        assert made.header["CRPIX1"] == pytest.approx(good.header["CRPIX1"], abs=0.1)
        assert made.header["CD1_1"] == pytest.approx(good.header["CD1_1"], rel=1e-3)


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_a_frame_without_wcs_is_mended_from_a_good_one_and_spoils_no_other(bad):
    """Also the first, from a later one; and the last, more than a minute after the first."""
    good = [*dither(), frame(4, 3.0, -3.0)]
    # Where the target really is on this detector, which no header but a good one knows.
    good = [f.evolve(cards={"CRPIX1": f.header["CRPIX1"] + 7}) for f in good]
    frames = list(good)
    frames[bad] = frames[bad].evolve(cards={"CD1_1": None, "CRVAL1": 10.0})
    for number, (made, as_was) in enumerate(zip(prepare.run(frames), good, strict=True)):
        assert made.header["CRPIX1"] == pytest.approx(as_was.header["CRPIX1"], abs=0.01), number
        assert made.header["CRVAL1"] == as_was.header["CRVAL1"]
        assert bool(made.notes) is (number == bad)


def test_a_frame_that_cannot_be_mended_is_left_out_and_told():
    frames = [*dither(), frame(4)]
    # Of another observation, so that no base helps.
    frames[2] = frames[2].evolve(cards={"CD1_1": 1.0, "CD2_2": 1.7, "CAMERA": "f99", "OBSID": "other"})
    frames = [frames[2], *frames[3:], frames[0], frames[1]]
    ready = prepare.run(frames)
    assert len(ready) == 4
    assert all("N20160102S0002.fits left out" in f.notes[-1] for f in ready)
    with pytest.raises(NotEnoughFrames, match="2 frames have a usable WCS, wanted 3"):
        prepare.run(frames[:3])


def test_a_moving_target_is_not_held_against_its_offsets():
    frames = dither(RATRACK=0.5)
    frames[1] = frames[1].evolve(cards={"CRPIX1": 32.5})
    assert not prepare.run(frames)[1].notes


def test_missing_offsets_are_no_reason_to_stop():
    frames = [f.evolve(cards={"POFFSET": None, "QOFFSET": None}) for f in dither()]
    assert len(prepare.run(frames, bad_wcs="exit")) == 4


def test_strict_mode_holds_the_pointing_against_the_target():
    far = [frame(i, RA=150.02) for i in range(3)]
    assert len(prepare.run(far)) == 3
    with pytest.raises(BadFrame, match="arcsec from the target"):
        prepare.run(far, bad_wcs="exit")


@pytest.mark.parametrize(
    ("cards", "message"),
    [({"INSTRUME": "GNIRS"}, "INSTRUME is 'GNIRS', wanted NIRI"), ({"EXPTIME": -1.0}, "EXPTIME is -1.0")],
)
def test_a_frame_that_is_not_ours_names_itself(cards, message):
    with pytest.raises(BadFrame, match=r"N20160102S0000.fits: " + message):
        prepare.run([frame(0, **cards)])


def test_unknown_read_mode_and_well_are_told():
    (ready,) = prepare.run([frame(0, LNRS=8)])
    assert "no read mode has (LNRS, NDAVGS) = (8, 16)" in ready.notes[0]
    (ready,) = prepare.run([frame(0, A_VDET=-1.0)])
    assert "SATLEVEL" not in ready.header
    assert "well depth is unknown" in ready.notes[0]


@pytest.mark.parametrize("angle", [0.0, 333.84])
def test_old_headers_without_p_and_q_give_the_same_wcs_from_their_other_offsets(angle):
    new = frame(0, 0.18, -12.57, PA=angle)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    old = new.evolve(
        cards={
            "POFFSET": None,
            "QOFFSET": None,
            "RAOFFSET": -0.18 * c - 12.57 * s,
            "DECOFFSE": -0.18 * s + 12.57 * c,
        }
    )
    assert nominal_wcs(old)["CRPIX1"] == pytest.approx(nominal_wcs(new)["CRPIX1"])
    assert nominal_wcs(old)["CRPIX2"] == pytest.approx(nominal_wcs(new)["CRPIX2"])
