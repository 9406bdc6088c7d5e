"""What a reduction wrote."""

DARK, FLAT, BPM = "N20160102S0423_dark.fits", "N20160102S0366_flat.fits", "N20160102S0366_bpm.fits"


STATIC = "bpm_20010317_niri_niri_11_full_1amp.fits"


def frames(night, first, last):
    return [str(path) for path in sorted(night.glob("N*.fits")) if first <= int(path.stem[-4:]) <= last]


def science(night):
    return frames(night, 270, 277)


def written(folder):
    return {path.name for path in folder.iterdir() if path.name != "rc"}
