"""What `nirid explain` says of a frame is true of the product that it says it of."""

from daemon.cli.explain import _file
from daemon.cli.output import worth

PRODUCT = {"product": "N1_image", "path": "/p/N1_image.fits", "version": 2, "current": True}
OLD = PRODUCT | {"path": "/p/superseded/N1_image.v0001.fits", "version": 1, "current": False}
BLURRED = {
    "verdict": "left out", "as_sky": "used", "reason": "blurred", "figure": 2.125, "limit": 1.5, "weight": 0.0
}  # fmt: skip


def lines(*products):
    answer = {
        "descriptors": {}, "paths": [], "first_seen": None, "checksum": "verified", "sha256": "0",
        "decisions": [], "groups": [], "state": "ready", "products": list(products),
    }  # fmt: skip
    return [(label, text) for label, text in _file(answer) if text]


def test_a_frame_is_not_used_in_what_it_was_left_out_of():
    said = lines(PRODUCT, OLD | {"judged": BLURRED})
    assert ("used in", "N1_image, version 2: /p/N1_image.fits") in said
    assert ("left out of", "N1_image, version 1: /p/superseded/N1_image.v0001.fits (not current)") in said
    assert ("judged", "left out by the pipeline in N1_image, version 1: blurred (2.125, limit 1.5)") in said


def test_one_that_is_no_sky_is_used_all_the_same():
    cloud = BLURRED | {
        "verdict": "used",
        "as_sky": "left out",
        "reason": "cloud",
        "figure": 0.2632,
        "limit": 0.7,
    }
    said = lines(PRODUCT | {"judged": cloud})
    assert ("used in", "N1_image, version 2: /p/N1_image.fits") in said
    assert (
        "judged",
        "made no sky for others by the pipeline in N1_image, version 2: cloud (0.263, limit 0.7)",
    ) in said


def test_a_row_of_a_frame_says_what_became_of_it():
    row = {"NAME": "a", "FWHM": 9.35, "SKYLEVEL": 30600.0, "D_ERR": 0.012}
    assert worth(row | {"VERDICT": "left out"}) == (
        "a, left out, FWHM 9.35 pix, sky 30600 e-, registered to 0.012 pix"
    )
    assert worth({"NAME": "b", "VERDICT": "left out", "FWHM": None}) == "b, left out"
    first = row | {"VERDICT": "used", "REGISTERED_BY": "reference", "D_ERR": 0.0}
    assert worth(first) == "a, FWHM 9.35 pix, sky 30600 e-, the others are registered to it"
