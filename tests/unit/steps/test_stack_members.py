"""The FRAMES table of a stack: what each exposure was worth, kept with the product."""

import json

import numpy as np
import pytest
from astropy.io import fits

from pipeline.files.read import plain_rows, read_frame, read_members
from pipeline.files.write import write_product
from pipeline.frame import NO_DATA, SATURATED, Frame
from pipeline.steps.stack import stack_frames


def frame(number: int, fwhm: float | None) -> Frame:
    dq = np.zeros((32, 32), np.uint16)
    dq[:16] = NO_DATA
    dq[20, : 8 * number] = SATURATED
    cards = {
        "INSTRUME": "NIRI", "EXPTIME": 20.0, "AIRMASS": 1.1 + number / 10, "SKYLEVEL": 1000.0 * number,
        "ORIGNAME": f"N20160102S{number:04d}.fits", "REGMETH": "sources", "REGDX": 0.5 * number,
        "DATE-OBS": "2016-01-02", "UT": f"06:0{number}:00", "GEM-TLM": "x", "PREPARE": "x",
    }  # fmt: skip
    if fwhm is not None:
        cards |= {"FWHMPIX": fwhm, "FWHMERR": 0.1, "NSTARS": 12}
    sci = np.full((32, 32), 100.0, np.float32)
    return Frame(sci, dq, fits.Header(cards), "electron", cards["ORIGNAME"], np.full_like(sci, 100.0))


def test_each_frame_has_a_row_that_survives_the_file(tmp_path):
    (stack,) = stack_frames.run([frame(1, 4.25), frame(2, None), frame(3, 5.0)])
    write_product(tmp_path / "stack.fits", stack, provenance=[], history=[], time_stamp="2016-01-02T06:10:00")
    rows = read_frame(tmp_path / "stack.fits").members
    assert [name.decode() for name in rows["NAME"]] == [f"N20160102S000{n}.fits" for n in (1, 2, 3)]
    assert rows["SKYLEVEL"] == pytest.approx([1000, 2000, 3000])
    assert rows["DX"] == pytest.approx([0.5, 1.0, 1.5])
    assert rows["FWHM"][[0, 2]] == pytest.approx([4.25, 5.0])
    assert np.isnan(rows["FWHM"][1]), "an unknown value must not look like a measured one"
    assert rows["NSTARS"][0] == 12
    assert rows["SATURATED"] == pytest.approx([8 / 512, 16 / 512, 24 / 512])
    plain = read_members(tmp_path / "stack.fits")
    assert plain[0]["NAME"] == "N20160102S0001.fits"
    assert plain[0]["FWHM"] == 4.25
    assert plain[1]["FWHM"] is None, "JSON has no NaN"
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain == plain_rows(stack.members)


def test_a_stack_does_not_say_of_itself_what_is_true_of_its_first_frame():
    frames = [frame(n, 4.0).evolve(cards={"TRANSP": 0.25 * n, "SCALEBY": 4.0 / n}) for n in (1, 2, 3)]
    (stack,) = stack_frames.run(frames)
    assert not {"TRANSP", "SCALEBY", "REGMETH", "REGDX"} & set(stack.header)
    assert stack.members["TRANSPARENCY"] == pytest.approx([0.25, 0.5, 0.75])
    assert frames[0].header["TRANSP"] == 0.25
