"""Tags of headers, each set as Gemini's own package gives it."""

import pytest

from pipeline.headers.tags import retags, tags_of

BASE = {
    "INSTRUME": "NIRI",
    "OBSERVAT": "Gemini-North",
    "TELESCOP": "Gemini-North",
    "FILTER3": "pupil38_G5207",
}
TRACKED = {"FRAME": "FK5", "RATRACK": 0.0, "DECTRACK": 0.0}


def tags(**cards: object) -> set[str]:
    return set(
        tags_of(
            {**BASE, **TRACKED, **{k.replace("_", "-") if k == "GEM_TLM" else k: v for k, v in cards.items()}}
        )
    )


ALWAYS = {"NIRI", "GEMINI", "NORTH", "SIDEREAL"}
RAW = {*ALWAYS, "RAW", "UNPREPARED"}


@pytest.mark.parametrize(
    ("cards", "wanted"),
    [
        pytest.param(
            {"OBSTYPE": "FLAT", "GCALLAMP": "IRhigh", "GCALSHUT": "CLOSED"},
            {*RAW, "CAL", "FLAT", "GCALFLAT", "GCAL_IR_OFF", "LAMPOFF", "IMAGE"},
            id="lamp-off flat",
        ),
        pytest.param(
            {"OBSTYPE": "FLAT", "GCALLAMP": "IRhigh", "GCALSHUT": "OPEN"},
            {*RAW, "CAL", "FLAT", "GCALFLAT", "GCAL_IR_ON", "LAMPON", "IMAGE"},
            id="lamp-on flat",
        ),
        pytest.param(
            {"OBSTYPE": "DARK", "GCALLAMP": "IRhigh", "GCALSHUT": "CLOSED"},
            {*RAW, "CAL", "DARK", "FLAT", "GCALFLAT", "GCAL_IR_OFF", "LAMPOFF"},
            id="dark whose header still names the lamp: no IMAGE, but FLAT",
        ),
        pytest.param(
            {"OBSTYPE": "OBJECT", "GCALLAMP": "No Value", "GCALSHUT": "CLOSED"},
            {*RAW, "GCAL_IR_OFF", "LAMPOFF", "IMAGE"},
            id="object with no lamp in use",
        ),
        pytest.param(
            {"OBSTYPE": "FLAT", "GCALLAMP": "IRlow", "GCALSHUT": "OPEN"},
            {*RAW, "CAL", "FLAT", "GCAL_IR_ON", "LAMPON", "IMAGE"},
            id="the low lamp makes no GCALFLAT",
        ),
        pytest.param({"OBSTYPE": "OBJECT", "FILTER3": "Kgrism_G5204"}, {*RAW, "SPECT", "LS"}, id="grism"),
        pytest.param(
            {"OBSTYPE": "OBJECT", "OBSCLASS": "acqCal"}, {*RAW, "IMAGE", "ACQUISITION"}, id="acquisition"
        ),
        pytest.param(
            {"OBSTYPE": "OBJECT", "OBJECT": "Twilight"},
            {*RAW, "IMAGE", "TWILIGHT", "FLAT", "CAL"},
            id="twilight",
        ),
        pytest.param(
            {"OBSTYPE": "DARK", "OBJECT": "Twilight"}, {*RAW, "DARK", "CAL"}, id="twilight falls with IMAGE"
        ),
        pytest.param(
            {
                "OBSTYPE": "FLAT",
                "GCALLAMP": "IRhigh",
                "GCALSHUT": "CLOSED",
                "BPMASK": "x",
                "GEM_TLM": "x",
                "PREPARE": "x",
            },
            {*ALWAYS, "CAL", "FLAT", "BPM", "PROCESSED", "PREPARED"},
            id="bad pixel mask made from flats",
        ),
        pytest.param(
            {
                "OBSTYPE": "FLAT",
                "GCALLAMP": "IRhigh",
                "GCALSHUT": "OPEN",
                "PROCFLAT": "x",
                "GEM_TLM": "x",
                "PREPARE": "x",
            },
            {*ALWAYS, "CAL", "FLAT", "GCALFLAT", "IMAGE", "PROCESSED", "PREPARED"},
            id="processed flat keeps GCALFLAT, loses LAMPON",
        ),
        pytest.param(
            {"OBSTYPE": "OBJECT", "PROCSCI": "x"},
            {*ALWAYS, "IMAGE", "PROCESSED", "PROCESSED_SCIENCE", "UNPREPARED"},
            id="processed science is not RAW even where GEM-TLM is missing",
        ),
        pytest.param(
            {"OBSTYPE": "OBJECT", "RATRACK": 0.2},
            {"NIRI", "GEMINI", "NORTH", "RAW", "UNPREPARED", "IMAGE", "NON_SIDEREAL"},
            id="moving target",
        ),
    ],
)
def test_tags(cards, wanted):
    assert tags(**cards) == wanted


def test_zenith_needs_airmass_exactly_one():
    parked = {**BASE, "OBSTYPE": "OBJECT", "FRAME": "AZEL_TOPO"}
    assert "AT_ZENITH" in tags_of({**parked, "AIRMASS": 1.0})
    assert "AT_ZENITH" not in tags_of({**parked, "AIRMASS": 1.001})


def test_another_instrument_is_not_niri():
    assert "NIRI" not in tags_of({**BASE, "INSTRUME": "GNIRS"})


def test_an_empty_header_does_not_raise():
    assert tags_of({}) == {"IMAGE", "RAW", "UNPREPARED"}


class Watched(dict):
    """Cards that remember which of them were read, and which were only looked for."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.read: set[str] = set()
        self.sought: set[str] = set()

    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.sought.add(key)
        return super().__contains__(key)


def test_what_changes_the_tags_is_known():
    """A frame keeps its tags while no card changes that a rule looks at."""
    seen = Watched({**BASE, **TRACKED, "OBSTYPE": "OBJECT", "AIRMASS": 1.0, "GCALSHUT": "OPEN"})
    other = Watched({**seen, "FRAME": "AZEL_TOPO", "GCALLAMP": "IRhigh"})
    tags_of(seen), tags_of(other)
    assert len(seen.read | other.read) > 10
    assert "GEM-TLM" in seen.sought
    for key in seen.read | other.read:
        assert retags({key: "x"}, {key: "y"}), key
    for key in seen.sought | other.sought:
        assert retags({}, {key: "y"}), key
        assert retags({key: "x"}, {key: None}), key
    assert retags({}, {"PREPARE": "now"})
    assert not retags({"PREPARE": "then"}, {"PREPARE": "now"})
    assert not retags({"GEM-TLM": "then"}, {"GEM-TLM": "now", "DARKIM": "x"})
