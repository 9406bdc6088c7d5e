"""What is known of NIRI and its detector: numbers as tables, each with its source.

NIRI has one 1024 x 1024 ALADDIN InSb array with four read-out quadrants of 512 x 512.
"ADU" and "DN" mean the same. Source of the electronic values and of the linearity fit:
the look-up tables of Gemini's DRAGONS package; Gemini's NIRI detector page agrees.
"""

from __future__ import annotations

from typing import NamedTuple

ARRAY_SIZE = 1024
GAIN = 12.3  # electrons per ADU

# Full well in electrons by the setting of the bias voltage.
WELL_ELECTRONS = {"Shallow": 200_000.0, "Deep": 280_000.0}
# The bias A_VDDUC - A_VDET in volts that goes with each setting, and how far it may stray.
WELL_BIAS_VOLTS = {"Shallow": -0.60, "Deep": -0.87}
WELL_BIAS_TOLERANCE = 0.05
# Response departs from linear above this fraction of the well.
LINEAR_FRACTION = 0.7

# (LNRS, NDAVGS) -> read mode; any other pair is "Unknown".
READ_MODES = {
    (16, 16): "Low Background",
    (1, 16): "Medium Background",
    (1, 1): "High Background",
}
# Electrons for one coadd; coadds add in quadrature.
READ_NOISE_ELECTRONS = {
    "Low Background": 12.3,
    "Medium Background": 35.0,
    "High Background": 70.0,
    "Unknown": 35.0,
}

# Electrons per second and pixel (Gemini's NIRI detector page); glow comes on top.
DARK_CURRENT = 0.25


class Linearity(NamedTuple):
    """c' = c (1 + gamma c + eta c^2) for c electrons per coadd, then times t / (t + time_delta).

    time_delta is in seconds: the array integrates that much longer than the header says.
    """

    time_delta: float
    gamma: float
    eta: float


# (read mode, NAXIS2, well depth); no entry means that no correction is known.
LINEARITY = {
    ("Low Background", 1024, "Shallow"): Linearity(1.2662732, 6.006310407e-07, 1.282732019e-12),
    ("Medium Background", 1024, "Shallow"): Linearity(0.09442515154, 2.787629143e-07, 3.178236042e-12),
    ("Medium Background", 256, "Shallow"): Linearity(0.01029262589, 5.540988347e-07, 1.404726339e-12),
    ("High Background", 1024, "Shallow"): Linearity(0.009697324059, 2.471574550e-07, 3.067478573e-12),
    ("High Background", 1024, "Deep"): Linearity(0.007680816203, 2.912125336e-07, 1.203254464e-12),
}

# Nominal arcsec per pixel by camera (Gemini's NIRI page); f/32 with the AO field lens is finer.
PIXEL_SCALES = {"f6": 0.1171, "f14": 0.0499, "f13.9": 0.0499, "f32": 0.0219}
PIXEL_SCALE_F32_AO = 0.0214
# Barrel distortion of f/32 with the AO field lens: r' = r + k r^2, r in pixels (same page).
DISTORTION_F32_AO = 1.32e-5


class Filter(NamedTuple):
    """pretty : Gemini's display name; wavelength : effective, micrometres, None where not tabled."""

    pretty: str
    wavelength: float | None


# Filter names without component numbers, sorted and joined by & -> how Gemini calls the combination.
FILTERS = {
    "PK50&Y": Filter("Y", 1.0200),
    "Jcon1065&PK50": Filter("Jcon(1065)", 1.0650),
    "HeI": Filter("HeI", 1.0830),
    "PaGamma": Filter("Pa(gamma)", 1.0940),
    "Jcon(112)&PK50": Filter("Jcon(112)", 1.1220),
    "Jcon(121)&PK50": Filter("Jcon(121)", 1.2070),
    "J": Filter("J", 1.2500),
    "PK50&Pabeta": Filter("Pa(beta)", 1.2820),
    "Hcon(157)&PK50": Filter("H-con(157)", 1.5700),
    "CH4short&PK50": Filter("CH4(short)", 1.5800),
    "FeII&PK50": Filter("FeII", 1.6440),
    "H": Filter("H", 1.6500),
    "CH4long&PK50": Filter("CH4(long)", 1.6900),
    "H2Oice204": Filter("H2Oice(2045)", 2.0450),
    "HeI(2p2s)&Kprime": Filter("HeI(2p2s)", 2.0590),
    "kcon(209)": Filter("Kcon(209)", 2.0975),
    "Kprime": Filter("K(prime)", 2.1200),
    "H2v=1-0S1&K": Filter("H2 1-0 S1", 2.1239),
    "Kshort": Filter("K(short)", 2.1500),
    "Brgamma": Filter("Br(gamma)", 2.1686),
    "K": Filter("K", 2.2000),
    "H2v=2-1S1": Filter("H2 2-1 S1", 2.2465),
    "kcon(227)": Filter("Kcon(227)", 2.2718),
    "CH4ice227": Filter("CH4ice(2275)", 2.2750),
    "COv=2-0bh": Filter("CO 2-0 (bh)", 2.2890),
    "H2Oice": Filter("H2O ice", None),
    "hydrocarb": Filter("hydrocarb", 3.2950),
    "Lprime": Filter("L(prime)", 3.7800),
    "Bracont": Filter("Br(alpha)Con", 3.9900),
    "Bra": Filter("Br(alpha)", 4.0520),
    "Mprime": Filter("M(prime)", 4.6800),
    "Jsort": Filter("J order sort", None),
    "Hsort&PK50": Filter("H order sort", None),
    "Ksort": Filter("K order sort", None),
    "Lsort": Filter("L order sort", None),
    "Msort": Filter("M order sort", None),
}

# No lamp flat exists for these: their sky is as bright as the lamp (names with component numbers).
THERMAL_FILTERS = frozenset({"Lprime_G0207", "Mprime_G0208", "Bra_G0238", "Bracont_G0237", "hydrocarb_G0231"})

# Magnitude of a source giving one electron per second (Vega), by camera and pretty filter name.
ZEROPOINTS = {
    ("f6", "Y"): 25.71,
    ("f6", "J"): 26.69,
    ("f6", "H"): 26.77,
    ("f6", "K"): 26.15,
    ("f6", "K(short)"): 26.12,
    ("f6", "K(prime)"): 26.40,
    ("f32", "J"): 26.05,
    ("f32", "H"): 26.34,
    ("f32", "K"): 25.71,
    ("f32", "K(short)"): 25.67,
    ("f32", "K(prime)"): 26.32,
}

# Photometric band by nearest nominal wavelength in micrometres (astronomical convention).
BANDS = {
    "u": 0.35,
    "g": 0.475,
    "r": 0.63,
    "i": 0.78,
    "Z": 0.90,
    "Y": 1.02,
    "X": 1.10,
    "J": 1.20,
    "H": 1.65,
    "K": 2.20,
    "L": 3.40,
    "M": 4.80,
    "N": 11.7,
    "Q": 18.3,
}


def is_thermal(filter_name: str) -> bool:
    """True for a filter in which the sky is as bright as a lamp; component numbers do not count."""
    thermal = {name.partition("_G")[0].lower() for name in THERMAL_FILTERS}
    return any(part.partition("_G")[0].lower() in thermal for part in filter_name.split("&"))
