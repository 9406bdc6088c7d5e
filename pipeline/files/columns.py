"""What each column of a product's tables means: {table: {column: (unit, meaning)}}.

Written as TUNIT and TCOMM, and listed in docs/products.md. Units are those of the FITS standard: it knows no
electron, which is ct, and said in words.
"""

from __future__ import annotations

Columns = dict[str, tuple[str, str]]

# Names, where SExtractor has them, are SExtractor's; positions count from 1 as FITS does.
OBJCAT: Columns = {
    "NUMBER": ("", "Number of the object"),
    "X_IMAGE": ("pix", "Centre in x, of the light above threshold"),
    "Y_IMAGE": ("pix", "Centre in y"),
    "X_WORLD": ("deg", "Right ascension, in the system of RADESYS"),
    "Y_WORLD": ("deg", "Declination"),
    "FLUX_AUTO": ("ct", "Electrons within a Kron aperture"),
    "FLUXERR_AUTO": ("ct", "Its error"),
    "MAG_AUTO": ("mag", "-2.5 log10(FLUX_AUTO), instrumental"),
    "MAGERR_AUTO": ("mag", "Error of MAG_AUTO, photons and sky"),
    "MAG_VEGA": ("mag", "Vega, total light of a star, by MAGZPT and airmass"),
    "MAGERR_VEGA": ("mag", "Error, that of the zero point included"),
    "FLUX_RADIUS": ("pix", "Radius of half the light"),
    "KRON_RADIUS": ("", "Kron radius, in A_IMAGE"),
    "FLUX_MAX": ("ct", "Highest pixel, electrons"),
    "BACKGROUND": ("ct", "Background below it, electrons"),
    "A_IMAGE": ("pix", "Scatter of the light along the long axis"),
    "B_IMAGE": ("pix", "Along the short axis"),
    "THETA_IMAGE": ("deg", "Direction of the long axis, from x to y"),
    "ELLIPTICITY": ("", "1 - B_IMAGE / A_IMAGE"),
    "ISOAREA_IMAGE": ("pix**2", "Area above threshold"),
    "FLAGS": ("", "Bits: 1 neighbours, 2 blended, 4 saturated, 8 cut"),
    "IMAFLAGS_ISO": ("", "Bits of DQ of its pixels, ORed"),
    "NIMAFLAGS_ISO": ("", "How many of its pixels have such bits"),
    "PROFILE_FWHM": ("pix", "FWHM from the area above half the peak"),
    "PROFILE_EE50": ("pix", "Diameter of half the light"),
    "X_FIT": ("pix", "Centre in x of a fitted Moffat profile"),
    "Y_FIT": ("pix", "Centre in y of the fit"),
    "ERR_FIT": ("pix", "Error of the centre, one axis"),
    "FWHM_FIT": ("pix", "FWHM of the fit"),
    "ELLIP_FIT": ("", "Ellipticity of the fit"),
    "BETA_FIT": ("", "Moffat exponent of the fit"),
    "STAR": ("", "1: a star by which sharpness is measured"),
}

FRAMES: Columns = {
    "NAME": ("", "File of the frame"),
    "REGISTERED_BY": ("", "How its place was found"),
    "VERDICT": ("", "What it was used for: used, weighted, left out"),
    "AS_SKY": ("", "The same, as a sky for others"),
    "REASON": ("", "Why"),
    "EXPTIME": ("s", "Exposure time, all coadds together"),
    "AIRMASS": ("", "Airmass"),
    "SKYLEVEL": ("ct", "Sky level taken off, electrons"),
    "FWHM": ("pix", "FWHM of its stars, median"),
    "FWHM_ERR": ("pix", "Its error"),
    "ELLIPTICITY": ("", "Ellipticity of its mean star"),
    "ELLIP_ERR": ("", "Its error"),
    "ELLIP_PA": ("deg", "Its direction, from x to y"),
    "NSTARS": ("", "Stars measured"),
    "NSOURCES": ("", "Sources found"),
    "NMATCHED": ("", "Sources matched with the reference"),
    "DX": ("pix", "By which it is off its header's place, x"),
    "DY": ("pix", "The same, y"),
    "D_ERR": ("pix", "Error of these, one axis"),
    "TRANSPARENCY": ("", "Its light over the clearest frame's"),
    "TRANSP_ERR": ("", "Its error"),
    "SCALE": ("", "Factor by which it was brought to one light"),
    "NOISECOR": ("", "Noise of single pixels over sqrt(VAR)"),
    "SATURATED": ("", "Fraction of its pixels that are saturated"),
    "FIGURE": ("", "What was found of it, where there is a REASON"),
    "LIMIT": ("", "And the limit of that"),
    "WEIGHT": ("", "Its weight in the stack"),
}

MEASURES: Columns = {
    "NAME": ("", "Figure of a master, see docs/judgement.md"),
    "VALUE": ("", "In UNIT"),
    "ERROR": ("", "One standard deviation"),
    "UNIT": ("", "Unit of VALUE and ERROR"),
}
NOTES: Columns = {"note": ("", "What a person should know")}
PROVENANCE: Columns = {
    "timestamp": ("", "End of the latest input"),
    "filename": ("", "Name of the input"),
    "sha256": ("", "SHA-256 of its bytes"),
    "role": ("", "input, or the kind of calibration"),
}
HISTORY: Columns = {
    "primitive": ("", "Step"),
    "args": ("", "Its parameters, as JSON"),
    "timestamp_start": ("", "End of the latest input"),
    "timestamp_stop": ("", "The same"),
    "version": ("", "Software that ran it"),
}

TABLES: dict[str, Columns] = {
    "OBJCAT": OBJCAT,
    "FRAMES": FRAMES,
    "MEASURES": MEASURES,
    "NOTES": NOTES,
    "PROVENANCE": PROVENANCE,
    "HISTORY": HISTORY,
}
UCDS = {"X_WORLD": "pos.eq.ra;meta.main", "Y_WORLD": "pos.eq.dec;meta.main", "MAG_VEGA": "phot.mag"}
