"""Darks, counts and their noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import BadFrame, FrameMismatch
from pipeline.frame import Frame
from pipeline.headers.merged import merge
from pipeline.primitive import Calibrations
from pipeline.simulate import Shot
from pipeline.steps.counts import add_var, adu_to_electrons, nonlinearity_correct
from pipeline.steps.darks import stack_darks
from pipeline.steps.prepare import prepare
from tests.unit.steps.shots import SHOT, frame_of, frames_of, ready, robust


@pytest.mark.parametrize("read_mode", ["Low Background", "Medium Background", "High Background"])
def test_dark_is_the_truth_with_its_noise(read_mode):
    shot = dataclasses.replace(SHOT, kind="dark", read_mode=read_mode).with_cosmic_rays()
    (dark,) = stack_darks.run(ready(frames_of(shot, 10)))
    good = dark.dq == 0
    residual = (dark.sci - (0.25 * 20.002 + 131))[good]
    assert good.mean() > 0.999
    # Means, for the counts of a perfectly even detector are whole ADU, and so are medians.
    assert abs(residual.mean()) < 0.15 + 3 * robust(residual) / np.sqrt(residual.size)
    pull = residual / np.sqrt(dark.var[good])
    assert (np.abs(pull) > 5).mean() < 1e-4  # no cosmic ray is left
    assert 0.97 < pull[np.abs(pull) < 5].std() < 1.03


def test_pedestal_is_photons_for_dragons():
    frames = ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 1), pedestal=False)
    assert np.median(frames[0].var) == pytest.approx(35**2 + 131 + 5, rel=0.01)
    frames = ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 1))
    assert np.median(frames[0].var) == pytest.approx(35**2 + 5, rel=0.01)


def test_pedestal_of_a_science_frame_is_that_of_its_dark():
    (dark,) = stack_darks.run(ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 3)))
    frames = adu_to_electrons.run(prepare.run(frames_of(SHOT.with_sky(100), 1)))
    noise = {"read_noise": True, "poisson_noise": True}
    (frame,) = add_var.run(frames, None, Calibrations(dark=dark), **noise)
    assert np.median(frame.var) == pytest.approx(35**2 + 100.25 * 20, rel=0.01)
    (frame,) = add_var.run(frames, None, **noise)
    assert np.median(frame.var) == pytest.approx(35**2 + 100.25 * 20 + 131, rel=0.01)


def test_noise_is_scaled_with_the_counts():
    """A short exposure in the slowest read mode: linearity scales counts to 2/3, and so their noise."""
    shot = Shot(shape=(1024, 1024), read_mode="Low Background", exposure=2.5, kind="flaton").with_sky(4000)
    (frame,) = ready([frame_of(shot, 6)])
    pull = (frame.sci - frame.sci.mean()) / np.sqrt(frame.var)
    assert pull.std() == pytest.approx(1, abs=0.02)
    (frame,) = ready([frame_of(shot, 6)], time_scaled=False)
    pull = (frame.sci - frame.sci.mean()) / np.sqrt(frame.var)
    assert pull.std() == pytest.approx(np.sqrt(2.5 / (2.5 + 1.2663)), abs=0.02)


def test_header_of_a_dark():
    frames = ready(frames_of(dataclasses.replace(SHOT, kind="dark", coadds=4), 3))
    (dark,) = stack_darks.run(frames)
    header = dark.header
    assert header["NCOMBINE"] == 3
    assert [header[f"IMCMB{i:03d}"] for i in (1, 2, 3)] == [f"N20160102S000{i}.fits" for i in (1, 2, 3)]
    assert header["DATALAB"].endswith("-001-STACK")
    assert header["STACKFRM"] == frames[2].stamp
    assert header["EXPTIME"] == pytest.approx(4 * 20.002)
    assert header["RDNOISE"] == pytest.approx(70)  # of one frame: 35 for each of 4 coadds
    assert header["GAIN"] == 1.0
    assert header["VARNOISE"] == "read, Poisson"
    assert header["LINCORR"] == header["ADUTOELE"] or header["LINCORR"] == frames[0].stamp
    assert dark.coverage is None


def test_darks_that_do_not_go_together():
    dark = dataclasses.replace(SHOT, kind="dark")
    other = dataclasses.replace(dark, exposure=10.0)
    with pytest.raises(FrameMismatch, match=r"10\.0 s, wanted 20\.002 s"):
        stack_darks.run(prepare.run([frame_of(dark, 1), frame_of(other, 2)]))
    with pytest.raises(FrameMismatch, match="wanted DARK"):
        stack_darks.run(prepare.run([frame_of(dark, 1), frame_of(SHOT, 2)]))
    with pytest.raises(FrameMismatch, match="coadds"):
        stack_darks.run(
            prepare.run(
                [frame_of(dark, 1), frame_of(dataclasses.replace(dark, exposure=10.001, coadds=2), 2)]
            )
        )
    (lone,) = stack_darks.run(ready([frame_of(dark, 1)]))
    assert "only one dark" in lone.notes[0]


def test_electrons():
    (frame,) = adu_to_electrons.run(prepare.run([frame_of(SHOT, 1)]))
    assert frame.unit == frame.header["BUNIT"] == "electron"
    assert frame.header["SATLEVEL"] == 199998.0
    assert frame.header["NONLINEA"] == 139998.6
    assert adu_to_electrons.run([frame])[0] is frame
    assert frame.sci.dtype == np.float32


@pytest.mark.parametrize("light", [100.0, 6000.0])
@pytest.mark.parametrize("coadds", [1, 4])
def test_linearity_gives_back_what_fell_on_the_detector(light, coadds):
    shot = dataclasses.replace(SHOT, coadds=coadds, exposure=20.0).with_sky(light)
    truth = 20 * coadds * (light + 0.25) + 131 * coadds
    linear = nonlinearity_correct.run(prepare.run([frame_of(shot, 5)]))
    (before,) = adu_to_electrons.run(linear)
    (after,) = nonlinearity_correct.run(adu_to_electrons.run(prepare.run([frame_of(shot, 5)])))
    for frame in (before, after):  # it may stand on either side of the conversion
        # 1e-3: the time delta belongs to the exposure, the simulated pedestal is not scaled by it.
        assert frame.sci.mean() == pytest.approx(truth, rel=1e-3)
    np.testing.assert_allclose(before.sci, after.sci, rtol=1e-6)
    assert before.header["SATLEVEL"] == pytest.approx(after.header["SATLEVEL"], abs=0.02)
    assert after.header["EXPTIME"] == pytest.approx(20 * coadds)


def test_levels_are_linearised_with_the_pixels():
    shot = dataclasses.replace(SHOT, read_mode="High Background", shape=(1024, 1024))
    raw = shot.headers()
    header = fits.Header(list(merge(*raw).items()))
    flat = Frame(
        np.full((1024, 1024), 5000, np.float32), np.zeros((1024, 1024), np.uint16), header, "adu", "x.fits"
    )
    (frame,) = nonlinearity_correct.run(adu_to_electrons.run(prepare.run([flat])))
    assert frame.header["SATLEVEL"] == 234423.193
    assert frame.header["NONLINEA"] == 153259.698
    assert frame.sci[0, 0] == pytest.approx(63117.732, abs=0.01)


def test_no_coefficients_is_said():
    shot = dataclasses.replace(SHOT, well="Deep").with_sky(500)
    (before,) = prepare.run([frame_of(shot, 1)])
    (after,) = nonlinearity_correct.run([before])
    np.testing.assert_array_equal(after.sci, before.sci)
    assert after.header["LINCORR"] == "none"
    assert "no linearity coefficients" in after.notes[0]


def test_variance_is_added_once():
    (frame,) = adu_to_electrons.run(prepare.run([frame_of(SHOT.with_sky(100), 1)]))
    (read,) = add_var.run([frame], read_noise=True)
    assert read.header["VARNOISE"] == "read"
    np.testing.assert_array_equal(read.var, 35.0**2)
    (both,) = add_var.run([read], read_noise=True, poisson_noise=True)
    assert both.header["VARNOISE"] == "read, Poisson"
    np.testing.assert_allclose(both.var, 35**2 + frame.sci, rtol=1e-6)
    assert add_var.run([both], read_noise=True, poisson_noise=True)[0] is both
    assert add_var.run([frame])[0].var is None
    (adu,) = add_var.run(prepare.run([frame_of(SHOT.with_sky(100), 1)]), read_noise=True, poisson_noise=True)
    np.testing.assert_allclose(adu.var, both.var / 12.3**2, rtol=1e-5)


def test_no_read_noise_in_the_header():
    with pytest.raises(BadFrame, match="RDNOISE"):
        add_var.run([frame_of(SHOT, 1)], read_noise=True)
