"""Standards, lamps and copies of calibrations serve alike in any order."""

import json
from dataclasses import replace

import pytest

from pipeline.association import CalKind
from tests.night import example1, frame, sha, static_bpm


def zero_point_of(daemon, name="N20160102S0271_image"):
    """The name of the first zero point that a product was given: the nearest standard's."""
    used = json.loads(daemon.current()[name])["cals"]
    return next((given for role, _, given in used if role == "zero_point"), None)


def test_science_takes_the_zero_point_of_the_nearest_standard_whenever_that_comes(daemons):
    night = example1()
    near, science = night[10:15], night[:10] + night[15:]
    far = [frame("standard", n, 5000 + 10 * (n - 305), exposure_time=3.0, coadds=1) for n in range(305, 310)]
    daemon = daemons()
    for records, expected in ((science, None), (far, "N20160102S0306_image"), (near, "N20160102S0296_image")):
        daemon.land(*records)
        daemon.run(600)
        assert zero_point_of(daemon) == expected
    assert [s.name for s in daemon.engine.ran].count("N20160102S0271_image") == 3
    assert zero_point_of(daemon, "N20160102S0296_image") is None
    at_once = daemons()
    at_once.land(*far, *night)
    at_once.until_idle()
    assert at_once.current() == daemon.current()
    assert len(at_once.engine.ran) == len(at_once.current())


def test_one_set_of_lamp_off_frames_serves_two_lamps_whatever_comes_first(daemons):
    def flats(kind, first, lamp):
        return [frame(kind, n, 20 * n, gcal_lamp_raw=lamp) for n in range(first, first + 4)]

    quartz, off, grey = flats("lampon", 1, "QH"), flats("lampoff", 5, "IRhigh"), flats("lampon", 9, "IRhigh")
    made = []
    for order in ((quartz, off, grey), (off, grey, quartz), (grey, quartz, off)):
        daemon = daemons()
        for records in order:
            daemon.land(*records)
            daemon.run(600)
        made.append(daemon.current())
        assert set(made[0]) == {"N20160102S0001_flat", "N20160102S0009_flat"}
        assert made[-1] == made[0]
    used = {name: json.loads(text)["inputs"] for name, text in made[0].items()}
    assert [int(name[10:14]) for name in used["N20160102S0001_flat"]] == list(range(1, 9))
    assert [int(name[10:14]) for name in used["N20160102S0009_flat"]] == list(range(5, 13))


def test_a_standard_that_gives_no_zero_point_after_all_takes_back_what_it_gave(daemons):
    night = example1()
    late = frame("standard", 300, 960, exposure_time=3.0, coadds=1)
    first, last = daemons(), daemons()
    first.land(*night)
    first.until_idle()
    assert zero_point_of(first) == "N20160102S0296_image"
    for daemon in (first, last):
        daemon.engine.cloudy = ("N20160102S0296_image",)
    first.land(late)
    first.until_idle()
    last.land(late, *night)
    last.until_idle()
    assert zero_point_of(first) is None
    assert first.current() == last.current()
    assert len(last.engine.ran) == len(last.current())
    # Rejected by a person, it takes it back too.
    other = daemons()
    other.land(*night)
    other.until_idle()
    other.decide("reject", "N20160102S0296_image", reason="a satellite crossed it", user="ada", said="")
    other.until_idle()
    assert zero_point_of(other) is None


@pytest.mark.parametrize("turned", [False, True])
def test_copies_of_calibrations_from_outside_serve_alike_in_any_order(daemons, turned):
    """Two copies of one mask, and a dark from elsewhere of the same time as our own."""
    copies = [
        replace(static_bpm(), path=f"/drop/{name}", file_sha=sha(name)) for name in ("a.fits", "b.fits.gz")
    ]
    ours = next(r for r in example1() if r.path.endswith("S0423.fits"))
    foreign = replace(
        static_bpm(), path="/drop/other_dark.fits", file_sha=sha("other"), data_sha=sha("other data"),
        facts=sha("other facts"), descriptors=ours.descriptors, kind=CalKind.DARK.value,
        tags=frozenset({"DARK", "CAL", "PROCESSED", "NIRI"}), reason="a processed dark from outside",
    )  # fmt: skip
    daemon = daemons()
    outside = [*copies, foreign]
    first, last = (outside[::-1], []) if turned else ([], outside)
    daemon.land(*first, *example1())
    daemon.until_idle()
    daemon.land(*last)
    daemon.until_idle()
    science = json.loads(daemon.current()["N20160102S0271_image"])
    names = {role: name for role, _, name in science["cals"]}
    assert names["processed_dark"] == "N20160102S0423_dark", "our own comes before a copy of the same time"
    assert names["static_bpm"] == "a"
