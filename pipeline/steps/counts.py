"""ADUToElectrons, addVAR, nonlinearityCorrect: from what the detector writes to electrons and their noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import niri
from pipeline.errors import BadFrame
from pipeline.frame import Frame
from pipeline.headers.values import number
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame

LEVELS = {"SATLEVEL": "Saturation level", "NONLINEA": "Non-linear regime"}
LONGEST_LINEAR_SECONDS = 600.0  # beyond, the linearity coefficients were not measured


@per_frame("ADUToElectrons")
def adu_to_electrons(frame: Frame, params: Any, cals: Calibrations) -> Frame:
    """Multiply by the gain; SATLEVEL and NONLINEA follow, GAIN becomes 1. Electrons are left alone."""
    if frame.unit == "electron":
        return frame
    gain = frame.descriptors.gain
    cards: dict[str, Any] = {
        "BUNIT": ("electron", "Physical units of the array values"),
        "GAIN": (1.0, "Gain [electrons/data value]"),
    }
    for key, meaning in LEVELS.items():
        if (level := number(frame.header, key)) is not None:
            cards[key] = (round(level * gain, 3), f"{meaning} [electron]")
    return (frame * gain).stamped("ADUTOELE", unit="electron", cards=cards)


@dataclass(frozen=True)
class AddVARParams:
    read_noise: bool = bounded(False, doc="add the read noise")
    poisson_noise: bool = bounded(False, doc="add the Poisson noise of the signal")
    pedestal: bool = bounded(
        True,
        dragons=False,
        doc="keep the detector's constant pedestal, which is no light, out of the Poisson noise",
    )
    time_scaled: bool = bounded(
        True, dragons=False, doc="noise of counts that were scaled to the nominal exposure is scaled, too"
    )


@per_frame("addVAR", AddVARParams)
def add_var(frame: Frame, params: AddVARParams, cals: Calibrations) -> Frame:
    """Set the variance: RDNOISE² + max(SCI - pedestal, 0) in electrons, over gain² and gain in ADU.

    After nonlinearityCorrect an electron counts as t/(t + delta), 4 % less in a short flat, as if the gain
    were larger. The pedestal is the level of a dark (its own, for darks; the associated one's, for what has
    one) less the electrons of the nominal dark current. What is in VARNOISE is not added twice.
    """
    listed = [part.strip() for part in str(frame.header.get("VARNOISE", "")).split(",") if part.strip()]
    read = params.read_noise and "read" not in listed
    poisson = params.poisson_noise and "Poisson" not in listed
    if not (read or poisson):
        return frame
    from pipeline.algorithms import calibrate

    read_noise = number(frame.header, "RDNOISE") if read else 0.0
    if read_noise is None:
        raise BadFrame(frame.name, "RDNOISE is not in its header, wanted electrons; run prepare first")
    pedestal = math.inf
    if poisson:
        pedestal = _pedestal(frame, cals) if params.pedestal else 0.0
    gain = frame.descriptors.gain / (_time_factor(frame) if params.time_scaled else 1.0)
    var = calibrate.noise(frame.sci, read_noise, gain, pedestal)
    if frame.var is not None:
        var = frame.var + var
    listed += ["read"] * read + ["Poisson"] * poisson
    return frame.stamped(
        "ADDVAR", var=var, cards={"VARNOISE": (", ".join(listed), "Types of noise included in VAR plane")}
    )


def _pedestal(frame: Frame, cals: Calibrations) -> float:
    """The part of the signal, in the frame's unit, that is no charge; 0 where no dark tells.

    The level of a dark is this pedestal and the dark current, whose nominal electrons are taken off
    again: they are real, and have noise. A mean within 5 sigma of the median, one pixel in 16: counts are
    whole ADU, and so would a median be, a step of 12 electrons.
    """
    dark = frame if "DARK" in frame.tags else cals.of(frame).dark
    if dark is None:
        return 0.0
    values = dark.sci[::4, ::4][dark.dq[::4, ::4] == 0].astype(np.float64)
    if not values.size:
        return 0.0
    facts = dark.descriptors
    middle = np.median(values)
    reach = 5.0 * (facts.read_noise or niri.READ_NOISE_ELECTRONS["Unknown"]) / facts.gain
    level = float(values[np.abs(values - middle) < reach].mean())
    charge = niri.DARK_CURRENT * (facts.exposure_time or 0.0)
    scaled = _time_factor(frame) / _time_factor(dark)
    return (level * facts.gain - charge) / frame.descriptors.gain * scaled


def _time_factor(frame: Frame) -> float:
    """By how much nonlinearityCorrect has scaled the counts to the nominal exposure time; 1 before it."""
    facts = frame.descriptors
    law = _law(frame) if frame.header.get("LINCORR", "none") != "none" else None
    if law is None or facts.exposure_time is None:
        return 1.0
    seconds = facts.exposure_time / facts.coadds
    return seconds / (seconds + law.time_delta)


def _law(frame: Frame) -> niri.Linearity | None:
    facts = frame.descriptors
    return niri.LINEARITY.get((facts.read_mode, frame.shape[0], facts.well_depth))


@per_frame("nonlinearityCorrect")
def nonlinearity_correct(frame: Frame, params: Any, cals: Calibrations) -> Frame:
    """Correct for the detector's non-linearity by read mode, array size and well depth.

    Stands on either side of ADUToElectrons. Where no coefficients are known the pixels stay as they are,
    LINCORR says `none`, and a note says so. EXPTIME stays: the counts are scaled to it.
    """
    if "LINCORR" in frame.header:
        return frame.evolve(note=f"{frame.name} has been through nonlinearityCorrect before")
    facts = frame.descriptors
    law = _law(frame)
    if law is None:
        setting = f"{facts.read_mode}, {frame.shape[0]} rows, {facts.well_depth} well"
        text = f"no linearity coefficients are known for {setting}: counts are not corrected"
        return frame.evolve(
            cards={"LINCORR": ("none", "No linearity coefficients for this setting")}, note=text
        )
    if facts.exposure_time is None:
        raise BadFrame(frame.name, "its exposure time is not known, wanted for the linearity correction")
    from pipeline.algorithms import calibrate

    seconds = facts.exposure_time / facts.coadds
    note = None
    if seconds > LONGEST_LINEAR_SECONDS:
        note = f"{frame.name}: linearity coefficients were not measured beyond {LONGEST_LINEAR_SECONDS:g} s"
    factor = seconds / (seconds + law.time_delta)
    sci, var = calibrate.linearize(frame.sci, frame.var, facts.gain, facts.coadds, law.gamma, law.eta, factor)
    cards: dict[str, Any] = {}
    to_electrons = facts.gain / facts.coadds
    for key in LEVELS:
        if (level := number(frame.header, key)) is not None:
            linear = calibrate.linearized(level * to_electrons, law.gamma, law.eta) / to_electrons
            cards[key] = round(linear, 3)
    return frame.stamped("LINCORR", sci=sci, var=var, cards=cards, note=note)
