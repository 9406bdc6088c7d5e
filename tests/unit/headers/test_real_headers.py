"""Frames built from real headers are what the observatory's archive says; the odd ones get through."""

import json
import math
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from daemon.arrivals.read import ingest
from daemon.judgement import lamps
from daemon.model.files import FileRecord
from daemon.people.missing import table
from pipeline.association import CalKind
from pipeline.files.read import read_frame
from pipeline.headers.descriptors import strip_ids
from pipeline.headers.values import sane_wcs
from tests.fitsfiles import real_file

HEADERS = Path(__file__).parents[4] / "shared/realdata"
EXPECTED = json.loads((HEADERS / "expected.json").read_text()) if HEADERS.is_dir() else {}
RAW = sorted(EXPECTED) or [pytest.param("", marks=pytest.mark.skip("shared/realdata is not here"))]

# What the tags of each kind of frame must and must not be.
KINDS = {
    "object": ({"IMAGE"}, {"SPECT", "FLAT", "DARK"}),
    "dark": ({"DARK", "CAL"}, {"IMAGE", "SPECT", "FLAT"}),
    "flat_on": ({"FLAT", "CAL", "IMAGE", "LAMPON", "GCALFLAT"}, {"LAMPOFF", "SPECT", "DARK"}),
    "flat_off": ({"FLAT", "CAL", "IMAGE", "LAMPOFF"}, {"LAMPON", "SPECT", "DARK"}),
    "spec_flat_on": ({"FLAT", "SPECT", "LAMPON"}, {"IMAGE"}),
    "spec_arc": ({"ARC", "SPECT"}, {"IMAGE"}),
    "spec_object": ({"SPECT"}, {"IMAGE"}),
}


@cache
def text_of(kind: str, name: str) -> str:
    return (HEADERS / "headers" / kind / f"{name}.fits.header").read_text(encoding="latin-1")


@pytest.fixture(scope="session")
def taken(tmp_path_factory):
    """name -> (record, path) of a file made from that real header, made once."""
    folder = tmp_path_factory.mktemp("real")

    @cache
    def take(kind: str, name: str) -> tuple[FileRecord, Path]:
        path = folder / f"{name}.fits"
        path.write_bytes(real_file(text_of(kind, name)))
        return ingest(str(path)), path

    return take


@pytest.mark.parametrize("name", RAW)
def test_kind_and_state(taken, name):
    record, _ = taken("raw", name)
    kind = EXPECTED[name]["frame_kind"]
    wanted, unwanted = KINDS[kind]
    assert wanted | {"NIRI", "GEMINI", "NORTH", "RAW"} <= record.tags
    assert not unwanted & record.tags
    assert record.state == ("refused" if kind.startswith("spec") else "ready"), record.reason
    if kind.startswith("spec"):
        assert "spectro" in record.reason


@pytest.mark.parametrize("name", RAW)
def test_descriptors(taken, name):
    record, _ = taken("raw", name)
    found, wanted = record.descriptors, EXPECTED[name]["expected"]
    for key in (
        "observation_type",
        "observation_class",
        "object",
        "data_label",
        "wavefront_sensor",
        "qa_state",
    ):
        assert getattr(found, key) == wanted[key], key
    assert found.filter_pretty.replace(" ", "_") == wanted["filter_name"]
    assert found.camera == wanted["camera"]
    assert strip_ids(found.disperser) == wanted["disperser"]
    assert strip_ids(found.focal_plane_mask) == wanted["focal_plane_mask"]
    assert found.exposure_time == pytest.approx(wanted["exposure_time"])
    assert found.detector_roi_setting == wanted["detector_roi_setting"]
    assert found.read_mode.replace(" ", "_") == wanted["detector_readmode_setting"]
    assert found.well_depth == wanted["detector_welldepth_setting"]
    assert found.gcal_lamp == wanted["gcal_lamp"]
    assert found.is_ao == wanted["adaptive_optics"]
    assert found.airmass == wanted["airmass"]
    when = datetime.fromisoformat(wanted["ut_datetime"]).replace(tzinfo=UTC)
    assert abs(found.ut_datetime - when) < timedelta(seconds=1)
    if wanted["ra"] is not None:  # the archive's place may be that of the target; half the field is 0.017
        across = (found.ra - wanted["ra"]) * math.cos(math.radians(wanted["dec"]))
        assert math.hypot(across, found.dec - wanted["dec"]) < 0.005
    pixels = found.shape[0] * found.shape[1] * 4
    assert 0 <= wanted["data_size"] - pixels < 40_000


@pytest.mark.parametrize("name", RAW)
def test_frames_can_be_read_and_have_sane_coordinates(taken, name):
    record, path = taken("raw", name)
    frame = read_frame(path, expect_data_sha=record.data_sha)
    assert frame.shape == record.descriptors.shape
    assert frame.sci.mean() == pytest.approx(1000, abs=1)
    assert sane_wcs(frame.header)


def test_a_corrupt_extension_matrix_gives_way_to_the_primary_copy(shared, taken):
    record, path = taken("raw", "N20030325S0098")
    assert "E-55" in text_of("raw", "N20030325S0098")
    assert read_frame(path).header["CD1_1"] == pytest.approx(-3.2524e-5, rel=1e-4)
    assert 0.116 < record.descriptors.pixel_scale < 0.117


def test_a_closed_lamp_is_off_though_the_header_says_which(shared, taken):
    record, _ = taken("raw", "N20150405S0028")
    assert (record.descriptors.gcal_lamp, record.descriptors.gcal_lamp_raw) == ("Off", "IRhigh")


def test_a_qh_lamp_is_a_lamp(shared, taken):
    assert "LAMPON" in taken("raw", "N20141203S0891")[0].tags


def test_doubled_frame_card_the_first_counts(shared, taken):
    lines = [line for line in text_of("raw", "N20150404S0872").splitlines() if line.startswith("FRAME ")]
    assert len(lines) > 1
    assert "FK5" in lines[1]
    assert read_frame(taken("raw", "N20150404S0872")[1]).header["FRAME"] == "AZEL_TOPO"
    assert "AZEL_TARGET" in taken("raw", "N20150404S0872")[0].tags


def test_old_integers_and_new_floats(shared, taken):
    assert "BITPIX  =                   32" in text_of("raw", "N20020620S0035")
    assert "BITPIX  =                  -32" in text_of("raw", "N20150404S0726")


def change(text: str, **cards: str) -> str:
    """A header text with some cards' values replaced, in every header that has them."""
    lines = []
    for line in text.splitlines():
        value = cards.get(line[:8].rstrip())
        lines.append(line if value is None else f"{line[:10]}{value:>20}")
    return "\n".join(lines)


@pytest.fixture
def odd(shared, tmp_path):
    """Ingest a real header with some values replaced."""

    def take(name: str, **cards: str) -> FileRecord:
        path = tmp_path / f"{name}.fits"
        path.write_bytes(real_file(change(text_of("raw", name), **cards)))
        return ingest(str(path))

    return take


def test_a_voltage_written_as_text(odd):
    assert odd("N20150404S0726", A_VDDUC="'-3.491'", A_VDET="'-2.602'").descriptors.well_depth == "Deep"


def test_world_coordinates_that_are_none_fall_back_to_the_target(odd):
    dead = {"CRPIX1": "0.", "CRPIX2": "0.", "CRVAL1": "0.", "CRVAL2": "0.", "CD1_1": "1.", "CD1_2": "0."}
    record = odd("N20150404S0726", **dead, CD2_1="0.", CD2_2="1.7", RA="277.47", DEC="1.22")
    assert record.state == "ready"
    assert (record.descriptors.ra, record.descriptors.dec) == (277.47, 1.22)


@pytest.mark.parametrize("size", [768, 256])
def test_sub_arrays_are_known_by_their_size_alone(odd, size):
    found = odd("N20150404S0726", NAXIS1=str(size), NAXIS2=str(size)).descriptors
    assert found.detector_roi_setting == f"Central{size}"
    assert found.array_section == f"[{513 - size // 2}:{512 + size // 2},{513 - size // 2}:{512 + size // 2}]"


def test_a_hundred_coadds(odd):
    found = odd("N20150404S0726", COADDS="100", EXPTIME="0.301").descriptors
    assert found.exposure_time == pytest.approx(30.1)
    assert found.saturation_level == 1_626_016


def test_a_dark_with_the_grism_in_is_a_dark(odd):
    record = odd("N20150404S0872", FILTER2="'blank   '", FILTER3="'Kgrism_G5204'", OBJECT="'GCALflat'")
    assert (record.state, "DARK" in record.tags, "SPECT" in record.tags) == ("ready", True, False)


def test_a_camera_that_disagrees_with_its_mask_is_taken_as_it_is(odd):
    record = odd("N20090918S0386", FPMASK="'f6-cam_G5208'")
    assert (record.state, record.descriptors.camera) == ("ready", "f32")


def test_mirrored_parity_is_seen(shared, taken):
    header = read_frame(taken("raw", "N20150404S0726")[1]).header
    assert header["CD1_1"] * header["CD2_2"] - header["CD1_2"] * header["CD2_1"] > 0
    assert math.isfinite(taken("raw", "N20150404S0726")[0].descriptors.pixel_scale)


def test_other_instruments_are_refused(shared, taken):
    for path in sorted((HEADERS / "headers/not_niri").iterdir()):
        record, _ = taken("not_niri", path.name.removesuffix(".fits.header"))
        assert record.state == "refused"
        assert "not NIRI" in record.reason


@pytest.mark.parametrize(
    ("name", "kind"), [("N20070819S0339_dark", CalKind.DARK), ("N20140313S0072_flat", CalKind.FLAT)]
)
def test_processed_calibrations_are_registered(shared, taken, name, kind):
    record, path = taken("processed", name)
    assert (record.state, record.kind) == ("calibration", kind), record.reason
    frame = read_frame(path)
    assert frame.var is not None
    assert record.descriptors.shape == frame.shape == frame.dq.shape


def test_processed_products_of_dragons_are_registered(shared):
    folder = shared / "reference/dragons-tiny"
    found = {path.name: ingest(str(path)) for path in sorted((folder / "products").iterdir())}
    kinds = {name.split("_")[1]: (r.state, r.kind) for name, r in found.items()}
    assert kinds == {
        "dark.fits": ("calibration", "processed_dark"),
        "flat.fits": ("calibration", "processed_flat"),
        "bpm.fits": ("calibration", "processed_bpm"),
        "image.fits": ("refused", ""),
    }
    mask = ingest(str(folder / "raw/bpm_20010317_niri_niri_11_full_1amp.fits.gz"))
    assert (mask.state, mask.kind) == ("calibration", "static_bpm")
    assert ingest(str(folder / "raw/N20160102S0271.fits.gz")).state == "ready"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("N20141203S0891", ""),
        ("N20151129S0307", ""),
        ("N20150405S0028", "ND4-5 (table ND2.0), 42 s (table 1.2 s)"),
    ],
)
def test_real_lamp_flats_against_geminis_table(shared, taken, name, said):
    facts = taken("raw", name)[0].descriptors
    lamp = table()[lamps.setup_of(facts)]
    assert lamps.differences(lamp, facts, lamp_on=facts.gcal_lamp != "Off") == said
