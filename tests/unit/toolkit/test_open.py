"""pipeline.open: tags and descriptors of a file from its headers, the planes when they are asked for."""

import datetime as dt
import inspect
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

import pipeline
from pipeline.toolkit.dataset import CannotOpen, Dataset
from pipeline.toolkit.methods import DESCRIPTORS, Described
from tests.fitsfiles import frame_bytes, noise, real_file

FLAT = {
    "INSTRUME": "NIRI", "OBSERVAT": "Gemini-North", "TELESCOP": "Gemini-North", "OBSTYPE": "FLAT",
    "OBSCLASS": "dayCal", "OBJECT": "GCALflat", "GEMPRGID": "GN-2015B-Q-31", "OBSID": "GN-2015B-Q-31-5",
    "DATALAB": "GN-2015B-Q-31-5-001_stack", "DATE-OBS": "2016-01-02", "UT": "06:02:45.3", "LT": "20:02:44.8",
    "EXPTIME": 2.001, "COADDS": 4, "LNRS": 1, "NDAVGS": 16, "A_VDDUC": -3.4065, "A_VDET": -2.8072,
    "CAMERA": "f6", "FPMASK": "f6-cam_G5208", "AIRMASS": 1.25,
    "FILTER1": "PK50_G0201", "FILTER2": "Y_G0241", "FILTER3": "pupil38_G5207", "GCALLAMP": "IRhigh",
    "GCALSHUT": "CLOSED", "PA": 45.0, "INPORT": 1, "AOFOLD": "park-pos.", "POFFSET": 11.71, "QOFFSET": -5.855,
    "RA": 10.0, "DEC": 60.0, "RAOFFSET": 36.0, "DECOFFSE": 7.2, "EPOCH": 2000.0, "PMRA": 1.5, "PMDEC": -3.6,
    "PWFS1_ST": "parked", "PWFS2_ST": "guiding", "OIWFS_ST": "guiding", "AOWFS_ST": "parked",
    "RAWPIREQ": "YES", "RAWGEMQA": "USABLE", "RAWIQ": "70-percentile", "RAWCC": "Any", "ARRAYID": "47911",
    "FRAME": "FK5", "TRKFRAME": "FK5", "RATRACK": 0.0, "DECTRACK": 0.0,
}  # fmt: skip
SCALE = 0.1171 / 3600
WCS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 128.5, "CRPIX2": 128.5, "CRVAL1": 10.1,
    "CRVAL2": 60.2, "CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE, "LOWROW": 0, "HIROW": 255,
    "LOWCOL": 0, "HICOL": 255,
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "N20160102S0363.fits"
    file.write_bytes(frame_bytes(FLAT, noise(256, 256), WCS))
    return file


# Every row of the published table, for this flat.
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("exposure_time", {}, pytest.approx(8.004)),
        ("coadds", {}, 4),
        ("read_mode", {}, "Medium Background"),
        ("well_depth_setting", {}, "Shallow"),
        ("gain", {}, [12.3]),
        ("read_noise", {}, [70.0]),
        ("saturation_level", {}, [65040]),
        ("non_linear_level", {}, [45528]),
        ("filter_name", {}, "PK50_G0201&Y_G0241"),
        ("filter_name", {"stripID": True}, "PK50&Y"),
        ("filter_name", {"pretty": True}, "Y"),
        ("disperser", {}, "MIRROR"),
        ("pupil_mask", {}, "pupil38_G5207"),
        ("pupil_mask", {"pretty": True}, "pupil38"),
        ("camera", {"pretty": True}, "f6"),
        ("focal_plane_mask", {}, "f6-cam_G5208"),
        ("focal_plane_mask", {"stripID": True}, "f6-cam"),
        ("focal_plane_mask", {"pretty": True}, "f6-cam"),
        ("pixel_scale", {}, pytest.approx(0.1171)),
        ("array_section", {}, [(384, 640, 384, 640)]),
        ("array_section", {"pretty": True}, ["[385:640,385:640]"]),
        ("detector_section", {}, [(384, 640, 384, 640)]),
        ("data_section", {}, [(0, 256, 0, 256)]),
        ("data_section", {"pretty": True}, ["[1:256,1:256]"]),
        ("detector_roi_setting", {}, "Central256"),
        ("binning", {}, "1x1"),
        ("detector_x_offset", {}, pytest.approx(-100.0)),  # bottom port without AO: mirrored
        ("detector_y_offset", {}, pytest.approx(50.0)),
        ("is_ao", {}, False),
        ("ra", {}, 10.1),
        ("dec", {}, 60.2),
        ("wcs_ra", {}, 10.1),
        ("wcs_dec", {}, 60.2),
        ("target_ra", {"pm": False}, 10.0),
        ("target_ra", {}, pytest.approx(10.0 + 16.005 * 1.5 * 15 / 3600, abs=1e-4)),
        ("target_dec", {}, pytest.approx(60.0 - 16.005 * 3.6 / 3600, abs=1e-4)),
        ("target_ra", {"pm": False, "offset": True}, pytest.approx(10.02, abs=3e-6)),
        ("target_dec", {"pm": False, "offset": True}, pytest.approx(60.002)),
        ("airmass", {}, 1.25),
        ("position_angle", {}, 45.0),
        ("ut_datetime", {}, dt.datetime(2016, 1, 2, 6, 2, 45, 300000)),
        ("ut_date", {}, dt.date(2016, 1, 2)),
        ("ut_time", {}, dt.time(6, 2, 45, 300000)),
        ("local_time", {}, dt.time(20, 2, 44)),
        ("program_id", {}, "GN-2015B-Q-31"),
        ("observation_id", {}, "GN-2015B-Q-31-5"),
        ("data_label", {}, "GN-2015B-Q-31-5-001_stack"),
        ("calibration_key", {}, "GN-2015B-Q-31-5-001"),
        ("observation_class", {}, "dayCal"),
        ("observation_type", {}, "FLAT"),
        ("object", {}, "GCALflat"),
        ("gcal_lamp", {}, "Off"),
        ("wavefront_sensor", {}, "OIWFS&PWFS2"),
        ("qa_state", {}, "Pass"),
        ("is_in_adu", {}, True),
        ("is_coadds_summed", {}, True),
        ("central_wavelength", {}, None),
        ("effective_wavelength", {}, 1.02e-6),
        ("effective_wavelength", {"asMicrometers": True}, 1.02),
        ("effective_wavelength", {"asNanometers": True}, 1020.0),
        ("effective_wavelength", {"asAngstroms": True}, 10200.0),
        ("wavelength_band", {}, "Y"),
        ("nominal_photometric_zeropoint", {}, [pytest.approx(25.71 - 2.725, abs=1e-3)]),
        ("nominal_atmospheric_extinction", {}, 0.0),
        (
            "group_id",
            {},
            "GN-2015B-Q-31-5_Y_f6_Medium Background_Shallow_['[385:640,385:640]']_NIRI_IMAGE_FLAT",
        ),
        ("raw_iq", {}, 70),
        ("raw_cc", {}, 100),
        ("raw_bg", {}, None),
        ("instrument", {}, "NIRI"),
        ("detector_name", {}, "47911"),
    ],
)  # fmt: skip
def test_descriptor(path, name, options, expected):
    assert getattr(pipeline.open(path), name)(**options) == expected


def test_an_extension_has_values_where_the_file_has_lists(path):
    ad = pipeline.open(path)
    assert len(ad) == 1
    for extension in (ad[0], ad[-1], next(iter(ad))):
        assert extension.gain() == 12.3
        assert extension.data_section() == (0, 256, 0, 256)
        assert extension.array_section(pretty=True) == "[385:640,385:640]"
        assert extension.nominal_photometric_zeropoint() == pytest.approx(22.985, abs=1e-3)
        assert extension.exposure_time() == ad.exposure_time()
    with pytest.raises(IndexError, match="there is no 1"):
        ad[1]


def test_group_id_of_a_dark(tmp_path):
    file = tmp_path / "dark.fits"
    file.write_bytes(frame_bytes())
    assert pipeline.open(file).group_id() == "20.002_1_Medium Background_Shallow_['[481:544,481:544]']"


def test_tags(path):
    assert {"NIRI", "RAW", "FLAT", "CAL", "GCALFLAT", "LAMPOFF", "IMAGE", "SIDEREAL"} <= pipeline.open(
        path
    ).tags


def test_tags_and_descriptors_cost_no_pixels(path, monkeypatch):
    monkeypatch.setattr("pipeline.files.read.read_frame", lambda *a, **k: pytest.fail("the pixels were read"))
    ad = pipeline.open(path)
    assert ad.tags
    for name in DESCRIPTORS:
        getattr(ad, name)()
    ad.header, ad.phu, ad.hdr, ad.shape, ad.info()
    assert ad.shape == (256, 256)


def test_planes_are_read_once_and_cannot_be_written(path):
    ad = pipeline.open(str(path))
    assert ad.sci.dtype == np.float32
    np.testing.assert_array_equal(ad.sci, fits.getdata(path))
    assert ad.var is None
    assert ad.dq.dtype == np.uint16
    assert not ad.dq.any()
    assert ad[0].data is ad.sci
    assert ad.data is ad.sci
    assert ad.mask is ad.dq
    with pytest.raises(ValueError, match="read-only"):
        ad.sci[0, 0] = 0


def test_headers_and_world_coordinates(path):
    ad = pipeline.open(path)
    assert ad.header["OBJECT"] == "GCALflat"
    assert ad.header["CRVAL1"] == 10.1
    assert "CRVAL1" not in ad.phu
    assert "OBJECT" not in ad.hdr
    assert ad.wcs.pixel_to_world_values(127.5, 127.5) == pytest.approx((10.1, 60.2))


def test_info_says_what_is_in_it(path, capsys):
    pipeline.open(path).info()
    out = capsys.readouterr().out
    assert "N20160102S0363.fits" in out
    assert "LAMPOFF" in out
    assert "(256, 256)" in out
    assert "float32" in out


def test_every_descriptor_says_its_unit_or_meaning_and_can_be_asked_of_nothing():
    class Nothing(Described):
        _cards, _shape, filename = {}, None, ""

    for name in DESCRIPTORS:
        method = getattr(Described, name)
        assert len(inspect.getdoc(method) or "") > 10, name
        getattr(Nothing(), name)()
    assert {"exposure_time", "filter_name", "nominal_photometric_zeropoint"} <= set(DESCRIPTORS)


def test_apparent_places_of_moving_targets_become_icrs(tmp_path):
    file = tmp_path / "N20160102S0001.fits"
    file.write_bytes(frame_bytes({**FLAT, "FRAME": "APPT", "RATRACK": 0.1}, noise(256, 256), WCS))
    ad = pipeline.open(file)
    assert "NON_SIDEREAL" in ad.tags
    # Sixteen years of precession: about 46 arcsec a year along the ecliptic, and some aberration.
    shift = math.hypot((ad.ra() - 10.1) * math.cos(math.radians(60.2)), ad.dec() - 60.2) * 3600
    assert 250 < shift < 900
    assert ad.wcs_dec() < 60.2


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "no such file"), (b"", ""), (b"not FITS at all" * 400, ""), ("folder", "not a regular file")],
)
def test_what_cannot_be_opened_is_named(tmp_path, content, why):
    file = tmp_path / "odd.fits"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(CannotOpen, match=rf"odd\.fits: .*{why}"):
        pipeline.open(file)


def test_opening_a_dataset_gives_one(path):
    assert pipeline.open(pipeline.open(path)).filename == "N20160102S0363.fits"
    assert isinstance(pipeline.open(path), Dataset)


def test_real_file_are_described_as_the_archive_does(shared, tmp_path):
    folder = shared / "realdata" / "headers" / "raw"
    expected = json.loads((shared / "realdata" / "expected.json").read_text())
    seen = 0
    for name, entry in expected.items():
        source = folder / f"{name}.fits.header"
        if not source.exists():
            continue
        file = tmp_path / f"{name}.fits"
        file.write_bytes(real_file(source.read_text(errors="replace")))
        ad, said = pipeline.open(file), entry["expected"]
        assert ad.exposure_time() == pytest.approx(said["exposure_time"], abs=1e-3)
        assert ad.observation_type() == said["observation_type"]
        assert ad.observation_class() == said["observation_class"]
        assert ad.detector_roi_setting() == said["detector_roi_setting"]
        assert ad.is_ao() == said["adaptive_optics"]
        seen += 1
    assert seen > 5


def test_import_is_quick_and_light():
    heavy = {"scipy", "numba", "peewee", "sep", "PIL", "structlog", "rich", "pipeline.algorithms"}
    code = f"import sys, pipeline; pipeline.open, pipeline.dataselect; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_public_names_are_all_there():
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    assert set(pipeline.__all__) <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="did you mean Reduce"):
        pipeline.Reduc  # noqa: B018
