"""A bad-pixel mask made of tonight's flats elsewhere, dropped in beside the static one."""

from dataclasses import replace

from pipeline.association import CalKind
from tests.night import NIGHT, example1, static_bpm


def roles(daemon):
    last = [spec for spec in daemon.engine.ran if spec.name == "N20160102S0271_image"][-1]
    return {c.role: c.name for c in last.calibrations}


def test_it_counts_as_a_made_one(daemons):
    """The mask of 2001 stays in use beside it; one made here of the target's own flats comes first."""
    static = static_bpm()
    outside = replace(
        static,
        path="/drop/N20160102S0900_bpm.fits",
        file_sha="ab" * 32,
        kind=CalKind.MADE_BPM.value,
        descriptors=replace(static.descriptors, ut_datetime=NIGHT, observation_type="FLAT"),
    )
    night = example1()
    short = [f for f in night if "N20160103" in f.path]
    daemon = daemons()
    daemon.land(*(f for f in night if f not in short), static, outside)
    daemon.run(300)
    given = {"processed_bpm": "N20160102S0900_bpm", "static_bpm": "bpm_20010317_niri_niri_11_full_1amp"}
    assert roles(daemon).items() >= given.items()
    daemon.land(*short)
    daemon.run(300)
    assert roles(daemon).items() >= (given | {"processed_bpm": "N20160102S0373_bpm"}).items()
