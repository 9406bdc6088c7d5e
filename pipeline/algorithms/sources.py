"""Sources of an image: detection and catalogue (over sep), and which sources are stars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numba import njit
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]
BoolImage = NDArray[np.bool_]
LabelImage = NDArray[np.int32]
Catalogue = NDArray[np.void]

UNKNOWN = -999.0  # a column that could not be measured, as in Gemini's OBJCAT

# SExtractor's and Gemini's names. X_IMAGE, Y_IMAGE count from 1. The *_FIT columns are of a Moffat
# profile (photometry.fit_stars), filled for compact sources, else UNKNOWN.
CATALOGUE = np.dtype(
    [
        ("NUMBER", "i4"),
        ("X_IMAGE", "f8"),
        ("Y_IMAGE", "f8"),
        ("X_WORLD", "f8"),  # degrees
        ("Y_WORLD", "f8"),
        ("FLUX_AUTO", "f4"),  # Kron ellipse, unit of the image
        ("FLUXERR_AUTO", "f4"),
        ("MAG_AUTO", "f4"),  # -2.5 log10(FLUX_AUTO)
        ("MAGERR_AUTO", "f4"),
        ("FLUX_RADIUS", "f4"),  # half-light radius, pixels
        ("KRON_RADIUS", "f4"),
        ("FLUX_MAX", "f4"),
        ("BACKGROUND", "f4"),
        ("A_IMAGE", "f4"),  # rms axes of the isophote, pixels
        ("B_IMAGE", "f4"),
        ("THETA_IMAGE", "f4"),  # degrees
        ("ELLIPTICITY", "f4"),
        ("ISOAREA_IMAGE", "i4"),  # pixels
        ("FLAGS", "i2"),
        ("IMAFLAGS_ISO", "i4"),  # OR of the DQ bits on the isophote
        ("NIMAFLAGS_ISO", "i4"),  # pixels of the isophote with any DQ bit
        ("PROFILE_FWHM", "f4"),  # 2 sqrt(area above half maximum / pi), pixels
        ("PROFILE_EE50", "f4"),  # diameter of half the light, pixels
        ("X_FIT", "f8"),
        ("Y_FIT", "f8"),
        ("ERR_FIT", "f4"),  # error of each coordinate, pixels
        ("FWHM_FIT", "f4"),
        ("ELLIP_FIT", "f4"),
        ("BETA_FIT", "f4"),
        ("STAR", "i2"),  # 1 for a source taken for a star (see `stars`)
    ]
)


@dataclass(frozen=True)
class Detection:
    """What counts as a source; names and NIRI values as in Gemini's detectSources."""

    thresh: float = 1.5  # sigma of the background, per pixel of the filtered image
    minarea: int = 40  # connected pixels
    back_size: int = 32  # mesh of the background, pixels
    back_filter: int = 3  # meshes of its median filter
    deblend_levels: int = 32
    deblend_contrast: float = 0.005
    kron: float = 2.5
    kron_minimum: float = 3.5  # least radius, pixels
    hidden_flags: int = 249  # DQ bits of pixels not seen: all but non-linear and saturated, which are stars
    # Culled afterwards:
    least_area: int = 20
    least_b: float = 1.1
    most_elongation: float = 50.0
    most_flagged: float = 0.95


LARGE = 50.0  # pixels, of the circle that all light of a source is in
# SExtractor's default.conv: a 3 x 3 pyramid.
CONVOLUTION = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32)


def detect(
    sci: FloatImage, dq: MaskImage, how: Detection, var: FloatImage | None = None
) -> tuple[Catalogue, LabelImage]:
    """Sources of an image: catalogue, brightest first, and map of their pixels.

    sci, var : (ny, nx) float32; dq : (ny, nx) uint16 DQ bits
    Returns the catalogue and (ny, nx) int32 labels: 0 for none, else NUMBER.

    Pixels with a DQ bit of how.hidden_flags are not seen. Flux errors need `var`; without it they are those
    of the background noise.
    """
    data = np.array(sci, np.float32)  # a copy: sep does not take read-only arrays
    hidden = (dq & np.uint16(how.hidden_flags)) != 0
    if not np.isfinite(data).all():
        hidden |= ~np.isfinite(data)
        data = np.where(hidden, np.float32(0), data)
    labels = np.zeros(sci.shape, np.int32)
    if hidden.all():
        return np.zeros(0, CATALOGUE), labels
    back = sep.Background(
        data, mask=hidden, bw=how.back_size, bh=how.back_size, fw=how.back_filter, fh=how.back_filter
    )
    smooth = back.back()
    flat = data - smooth
    if not back.globalrms > 0:
        return np.zeros(0, CATALOGUE), labels
    found, segments = _extract(flat, hidden, how, back.globalrms)
    catalogue, segments = _culled(found, segments, dq, how)
    if catalogue.size:
        _measure(catalogue, flat, smooth, var, hidden, segments, how, back.globalrms)
    order = np.argsort(-catalogue["FLUX_AUTO"], kind="stable")
    renumber = np.zeros(catalogue.size + 1, np.int32)
    renumber[order + 1] = np.arange(1, catalogue.size + 1)
    catalogue = catalogue[order]
    catalogue["NUMBER"] = np.arange(1, catalogue.size + 1)
    return catalogue, renumber[segments]


def _extract(flat: FloatImage, hidden: BoolImage, how: Detection, rms: float) -> tuple[Any, LabelImage]:
    """sep's source list and segments; without deblending where a crowd makes it give up."""
    sep.set_extract_pixstack(max(300_000, flat.size))
    options: dict[str, Any] = {
        "err": rms,
        "mask": hidden,
        "minarea": how.minarea,
        "filter_kernel": CONVOLUTION,
        "filter_type": "conv",
        "segmentation_map": True,
    }
    try:
        found, segments = sep.extract(
            flat, how.thresh, deblend_nthresh=how.deblend_levels, deblend_cont=how.deblend_contrast, **options
        )
    except Exception:  # sep raises bare Exception: "object deblending overflow"
        found, segments = sep.extract(flat, how.thresh, deblend_cont=1.0, **options)
    return found, segments


def _culled(found: Any, segments: LabelImage, dq: MaskImage, how: Detection) -> tuple[Catalogue, LabelImage]:
    """Sources that may be real, renumbered from 1 in the order of `found`."""
    flagged, bits = _flags_of_segments(segments, dq, len(found))
    area = found["npix"]
    keep = (
        (area >= how.least_area)
        & (found["b"] >= how.least_b)
        & (found["a"] <= how.most_elongation * found["b"])
        & (flagged[1:] <= how.most_flagged * area)
    )
    renumber = np.zeros(len(found) + 1, np.int32)
    renumber[1:][keep] = np.arange(1, keep.sum() + 1)
    kept = found[keep]
    table = np.zeros(kept.size, CATALOGUE)
    for column in (
        "PROFILE_FWHM",
        "PROFILE_EE50",
        "X_FIT",
        "Y_FIT",
        "ERR_FIT",
        "FWHM_FIT",
        "ELLIP_FIT",
        "BETA_FIT",
    ):
        table[column] = UNKNOWN
    table["X_IMAGE"], table["Y_IMAGE"] = kept["x"] + 1, kept["y"] + 1
    table["A_IMAGE"], table["B_IMAGE"] = kept["a"], kept["b"]
    table["THETA_IMAGE"] = np.degrees(kept["theta"])
    table["ELLIPTICITY"] = 1 - kept["b"] / kept["a"]
    table["ISOAREA_IMAGE"], table["FLUX_MAX"], table["FLAGS"] = kept["npix"], kept["peak"], kept["flag"]
    table["NIMAFLAGS_ISO"], table["IMAFLAGS_ISO"] = flagged[1:][keep], bits[1:][keep]
    return table, renumber[segments]


@njit(cache=True, nogil=True)
def _flags_of_segments(
    segments: LabelImage, dq: MaskImage, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover - compiled
    """Flagged pixels and OR of their bits, by label."""
    flagged, bits = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for y in range(segments.shape[0]):
        for x in range(segments.shape[1]):
            if dq[y, x]:
                flagged[segments[y, x]] += 1
                bits[segments[y, x]] |= dq[y, x]
    return flagged, bits


def _measure(
    table: Catalogue,
    flat: FloatImage,
    smooth: FloatImage,
    var: FloatImage | None,
    hidden: BoolImage,
    segments: LabelImage,
    how: Detection,
    rms: float,
) -> None:
    """Fill in Kron fluxes, half-light radii and profiles.

    flat : the image less its background `smooth`, whose noise is `rms`
    """
    x, y = table["X_IMAGE"] - 1, table["Y_IMAGE"] - 1
    a, b = table["A_IMAGE"].astype(float), table["B_IMAGE"].astype(float)
    theta = np.clip(np.radians(table["THETA_IMAGE"].astype(float)), -np.pi / 2, np.pi / 2)
    # Pixels of other sources are left out and replaced by their mirror images.
    own: dict[str, Any] = {"segmap": segments, "seg_id": np.arange(1, table.size + 1, dtype=np.int32)}
    kron, kron_flag = sep.kron_radius(flat, x, y, a, b, theta, 6.0, mask=hidden, **own)
    noise: dict[str, Any] = {"err": rms} if var is None else {"var": np.array(var)}
    flux, error, flag = sep.sum_ellipse(
        flat, x, y, a, b, theta, how.kron * kron, subpix=5, mask=hidden, **noise, **own
    )
    small = kron * np.sqrt(a * b) * how.kron < how.kron_minimum
    own_small = {"segmap": segments, "seg_id": own["seg_id"][small]}
    circle = sep.sum_circle(flat, x[small], y[small], how.kron_minimum, mask=hidden, **noise, **own_small)
    flux[small], error[small], flag[small] = circle
    reach = np.maximum(6.0 * a, how.kron_minimum)
    half = np.empty(table.size)
    # A fifth of a pixel matters in a small source; in a large one it only costs, 1e-3 of the radius is less.
    for some, subpix in ((reach <= LARGE, 5), (reach > LARGE, 2)):
        half[some], _ = sep.flux_radius(
            flat, x[some], y[some], reach[some], 0.5, normflux=flux[some], subpix=subpix, mask=hidden,
            segmap=segments, seg_id=own["seg_id"][some],
        )  # fmt: skip
    table["KRON_RADIUS"] = kron
    table["FLUX_AUTO"], table["FLUXERR_AUTO"] = flux, error
    table["FLAGS"] |= flag.astype(np.int16) | kron_flag.astype(np.int16)
    table["FLUX_RADIUS"] = half
    with np.errstate(divide="ignore", invalid="ignore"):
        table["MAG_AUTO"] = np.where(flux > 0, -2.5 * np.log10(np.maximum(flux, 1e-30)), 99.0)
        table["MAGERR_AUTO"] = np.where(flux > 0, 1.0857 * error / np.maximum(flux, 1e-30), 99.0)
    rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
    inside = np.clip(rows, 0, flat.shape[0] - 1), np.clip(columns, 0, flat.shape[1] - 1)
    table["BACKGROUND"] = smooth[inside]
    fwhm, ee50 = _profiles(flat, segments, x, y, reach)
    table["PROFILE_FWHM"], table["PROFILE_EE50"] = fwhm, ee50


@njit(cache=True, nogil=True)
def _profiles(
    flat: FloatImage, segments: LabelImage, x: Any, y: Any, reach: Any
) -> tuple[Any, Any]:  # pragma: no cover - compiled
    """FWHM from the area above half maximum, and diameter of half the light, for each source.

    Only the source's own segment counts for the first; all pixels within `reach` but those of other
    sources for the second.
    """
    n = x.size
    fwhm, ee50 = np.full(n, -999.0), np.full(n, -999.0)
    ny, nx = flat.shape
    for i in range(n):
        r = reach[i]
        x0, x1 = max(0, int(x[i] - r)), min(nx, int(x[i] + r) + 2)
        y0, y1 = max(0, int(y[i] - r)), min(ny, int(y[i] + r) + 2)
        peak = 0.0
        for yy in range(y0, y1):
            for xx in range(x0, x1):
                if segments[yy, xx] == i + 1 and flat[yy, xx] > peak:
                    peak = flat[yy, xx]
        above = 0
        rings = int(2 * r) + 2  # half-pixel rings
        light = np.zeros(rings)
        for yy in range(y0, y1):
            for xx in range(x0, x1):
                label = segments[yy, xx]
                if label == i + 1 and flat[yy, xx] > 0.5 * peak:
                    above += 1
                d = np.sqrt((xx - x[i]) ** 2 + (yy - y[i]) ** 2)
                if d < r and (label == 0 or label == i + 1):
                    light[int(2 * d)] += flat[yy, xx]
        if above:
            fwhm[i] = 2 * np.sqrt(above / np.pi)
        total, running = light.sum(), 0.0
        if total <= 0:
            continue
        for k in range(rings):
            if running + light[k] >= 0.5 * total:
                ee50[i] = k + (0.5 * total - running) / light[k]
                break
            running += light[k]
    return fwhm, ee50


def object_mask(labels: LabelImage) -> BoolImage:
    """True on the pixels of any source."""
    return np.asarray(labels > 0)


def stars(catalogue: Catalogue, *, signal_to_noise: float = 20.0, most_elliptic: float = 0.5) -> BoolImage:
    """True for the sources taken for stars: bright, whole, round, and of one size.

    Of those with a fitted profile: no saturated or bad pixel, ellipticity below `most_elliptic`, flux over
    error above `signal_to_noise`; then those within 3 sigma (at least 10 %) of the median size, twice. The
    median is of the more compact half when many differ, since galaxies are larger, never smaller.
    """
    t = catalogue
    with np.errstate(divide="ignore", invalid="ignore"):
        keep = (
            (t["FWHM_FIT"] > 0)
            & (t["NIMAFLAGS_ISO"] == 0)
            & (t["ELLIP_FIT"] < most_elliptic)
            & (t["FLUX_AUTO"] > signal_to_noise * t["FLUXERR_AUTO"])
            & (t["FLAGS"] & 0b11000 == 0)  # aperture cut by the edge, or with masked pixels only
        )
    for fraction in (0.4, 0.5):
        if keep.sum() < 3:
            break
        size = t["FWHM_FIT"][keep].astype(float)
        centre = float(np.quantile(size, fraction))
        spread = MAD_TO_SIGMA * float(np.median(np.abs(size - centre)))
        keep &= np.abs(t["FWHM_FIT"] - centre) <= max(3 * min(spread, 0.15 * centre), 0.10 * centre)
    return np.asarray(keep)
