"""What a file is: every state with one clear reason, from files put together by hand."""

import gzip
import hashlib
import os
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from daemon.arrivals.read import ZERO_WATCH, ingest
from daemon.model.files import FileChanged, signature_of
from pipeline.association import CalKind
from tests.fitsfiles import BLOCK, DARK, frame_bytes, header_bytes, image_bytes, noise

K_BAND = {**DARK, "FILTER1": "K_G0204", "FILTER3": "pupil38_G5207"}
OBJECT = {**K_BAND, "OBSTYPE": "OBJECT", "OBJECT": "M 82"}
FLAT = {**K_BAND, "OBSTYPE": "FLAT", "OBJECT": "GCALflat", "GCALLAMP": "IRhigh", "GCALSHUT": "OPEN"}
DONE = {"PREPARE": "x", "GEM-TLM": "x"}


@pytest.fixture
def drop(tmp_path):
    """Write bytes into a drop folder; returns the path as text."""

    def write(data: bytes, name: str = "N20160102S0270.fits") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def test_a_raw_frame_is_ready_with_all_that_is_known_of_it(drop):
    data = frame_bytes(OBJECT)
    path = drop(data)
    record = ingest(path)
    assert (record.state, record.kind, record.verified) == ("ready", "", None)
    assert record.reason
    assert record.file_sha == hashlib.sha256(data).hexdigest()
    assert record.data_sha == hashlib.sha256(noise().astype(">f4").tobytes()).hexdigest()
    assert record.signature == signature_of(os.stat(path))
    assert record.data_label == "GN-2015B-Q-31-1-001"
    assert {"NIRI", "RAW", "IMAGE"} <= record.tags
    assert record.descriptors.shape == (64, 64)
    assert record.descriptors.object == "M 82"


@pytest.mark.parametrize(
    "cards", [DARK, FLAT, OBJECT, {**OBJECT, "OBSCLASS": "acq"}, {**OBJECT, "OBJECT": "Twilight"}]
)
def test_imaging_frames_are_ready_also_those_that_no_recipe_takes(drop, cards):
    assert ingest(drop(frame_bytes(cards))).state == "ready"


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({**OBJECT, "INSTRUME": "GNIRS"}, "the instrument is GNIRS, not NIRI"),
        ({k: v for k, v in OBJECT.items() if k != "INSTRUME"}, "INSTRUME is missing"),
        ({**OBJECT, "FILTER3": "Kgrism_G5204"}, "spectroscopic"),
        ({**FLAT, "FILTER3": "Kgrism_G5204"}, "spectroscopic"),
        ({**OBJECT, "OBSTYPE": "ARC"}, "an arc"),
        ({**OBJECT, **DONE, "PROCSCI": "x"}, "neither dark, flat nor bad-pixel mask"),
        ({**OBJECT, **DONE}, "prepared"),
        ({**OBJECT, "OBSTYPE": "BIAS"}, "OBSTYPE is BIAS"),
        ({**DARK, "EXPTIME": b"EXPTIME = 1e400"}, "exposure time"),
        ({**DARK, "EXPTIME": b"EXPTIME =                  NaN"}, "exposure time"),
        ({**DARK, "DATE-OBS": "soon"}, "date"),
    ],
)
def test_whole_files_that_are_not_for_us_are_refused_for_the_right_reason(drop, cards, reason):
    record = ingest(drop(frame_bytes(cards), "a.fits"))
    assert (record.state, reason in record.reason) == ("refused", True), record.reason
    assert record.file_sha


def test_a_dark_with_a_grism_in_the_beam_is_a_dark(drop):
    assert ingest(drop(frame_bytes({**DARK, "FILTER2": "blank", "FILTER3": "Kgrism_G5204"}))).state == "ready"


@pytest.mark.parametrize(
    ("cards", "kind"),
    [
        ({**DARK, **DONE, "PROCDARK": "x"}, CalKind.DARK),
        ({**FLAT, **DONE, "PROCFLAT": "x"}, CalKind.FLAT),
        ({**FLAT, **DONE, "BPMASK": "x"}, CalKind.MADE_BPM),  # carries FLAT as well: BPM is tested first
        ({**DARK, "OBSTYPE": "BPM", "BPMASK": True}, CalKind.STATIC_BPM),
    ],
)
def test_processed_calibrations_are_registered_as_what_they_are(drop, cards, kind):
    pixels = np.zeros((64, 64), "i2") if "BPMASK" in cards else None
    record = ingest(drop(frame_bytes(cards, pixels)))
    assert (record.state, record.kind) == ("calibration", kind)


@pytest.mark.parametrize(("type_", "value"), [("i4", 65536), ("f4", 0.5), ("f4", np.nan), ("i2", -1)])
@pytest.mark.parametrize("cards", [{**FLAT, **DONE}, {**DARK, "OBSTYPE": "BPM"}])
def test_a_mask_that_is_none_is_refused_with_a_count(drop, cards, type_, value):
    mask = np.zeros((64, 64), type_)
    mask[3, 4:9] = value
    record = ingest(drop(frame_bytes({**cards, "BPMASK": True}, mask)))
    assert record.state == "refused"
    assert "5 values of a mask are no 16 bits" in record.reason


@pytest.mark.parametrize(
    "dq", [np.full((64, 64), 0.5, "f4"), np.zeros((64, 32), "i2"), np.full((64, 64), -1, "i2")]
)
def test_a_calibration_whose_mask_is_none_is_refused(drop, dq):
    content = frame_bytes({**DARK, **DONE, "PROCDARK": "x"}, ext={"EXTNAME": "SCI"})
    record = ingest(drop(content + image_bytes(dq, {"EXTNAME": "DQ"})))
    assert record.state == "refused"
    assert "no processed_dark" in record.reason


@pytest.mark.parametrize("seconds", [0, 0.0, -1.0, "none"])
def test_no_exposure_is_refused(drop, seconds):
    record = ingest(drop(frame_bytes({**DARK, "EXPTIME": seconds})))
    assert (record.state, record.reason) == ("refused", "no usable exposure time (EXPTIME)")


def test_a_mask_of_zeros_is_no_copy_that_stopped(drop):
    mask = np.zeros((256, 256), "i2")
    mask[0, 0] = 1
    assert ingest(drop(frame_bytes({**DARK, "OBSTYPE": "BPM", "BPMASK": True}, mask))).state == "calibration"


def test_qa_state_fail_is_excluded_and_is_no_part_of_the_facts(drop):
    good, bad = ingest(drop(frame_bytes())), ingest(drop(frame_bytes({**DARK, "RAWGEMQA": "BAD"})))
    assert (bad.state, "QA" in bad.reason) == ("excluded", True)
    assert good.facts == bad.facts
    assert good.data_sha == bad.data_sha


def test_facts_change_with_a_descriptor_and_with_nothing_else(drop):
    base = ingest(drop(frame_bytes(OBJECT)))
    assert ingest(drop(frame_bytes({**OBJECT, "NOTE": "edited"}))).facts == base.facts
    assert ingest(drop(frame_bytes(OBJECT, noise(seed=2)))).facts == base.facts
    assert ingest(drop(frame_bytes({**OBJECT, "FILTER1": "J_G0202"}))).facts != base.facts


def test_compressed_and_renamed_is_the_same_frame(drop):
    plain, packed = ingest(drop(frame_bytes())), ingest(drop(gzip.compress(frame_bytes()), "X.fits.gz"))
    assert (packed.state, packed.data_sha, packed.facts) == ("ready", plain.data_sha, plain.facts)
    assert packed.file_sha != plain.file_sha


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame_bytes()[:-5000], "bytes expected"),
        (frame_bytes()[:1000], "cut short"),
        (b"", "cut short"),
        (bytes(100_000), "all zeros"),
        (frame_bytes()[:BLOCK], "no image in it yet"),
        (gzip.compress(frame_bytes())[:-100], "before its end mark"),
    ],
)
def test_short_files_are_incomplete_then_quarantined_or_refused_with_the_evidence(drop, data, reason):
    record = ingest(drop(data))
    assert (record.state, reason in record.reason) == ("incomplete", True), record.reason
    late = ingest(drop(data), patience="overdue")
    assert late.state == ("refused" if "image" in reason else "quarantined")
    assert late.file_sha == hashlib.sha256(data).hexdigest()
    assert ingest(drop(data), patience="batch").state == ("refused" if "image" in reason else "incomplete")


def test_reserved_space_that_is_not_filled_yet(drop):
    pixels = noise(128, 128)
    pixels[40:] = 0
    part = frame_bytes(pixels=pixels)
    assert [ingest(drop(part), patience=p).state for p in ("live", "overdue", "batch")] == [
        "incomplete", "quarantined", "incomplete",
    ]  # fmt: skip
    empty = frame_bytes(pixels=np.zeros((128, 128), "f4"))
    live = ingest(drop(empty))
    assert (live.state, live.watch) == ("incomplete", ZERO_WATCH)
    assert [ingest(drop(empty), patience=p).state for p in ("overdue", "batch")] == ["ready", "ready"]
    more = frame_bytes() + bytes(10 * BLOCK)
    assert [ingest(drop(more), patience=p).state for p in ("live", "overdue")] == ["incomplete", "ready"]


def test_a_damaged_raw_frame_is_described_by_its_headers(drop):
    whole = frame_bytes(OBJECT)
    lost = ingest(drop(whole[:-BLOCK]), patience="overdue")
    assert (lost.state, lost.data_sha) == ("quarantined", "")
    good = ingest(drop(whole))
    assert (lost.descriptors, lost.tags, lost.facts) == (good.descriptors, good.tags, good.facts)
    for other in (frame_bytes({**OBJECT, **DONE}), frame_bytes({**OBJECT, "INSTRUME": "GNIRS"})):
        assert ingest(drop(other[:-BLOCK]), patience="overdue").descriptors is None
    assert ingest(drop(whole[: BLOCK + 100]), patience="overdue").descriptors is None


def test_tiles_that_cannot_be_unpacked_are_damage(drop, tmp_path):
    plain = fits.open(drop(frame_bytes()))
    tiled = fits.HDUList([plain[0].copy(), fits.CompImageHDU(plain[1].data, plain[1].header)])
    tiled.writeto(tmp_path / "tiled.fits")
    plain.close()
    data = (tmp_path / "tiled.fits").read_bytes()
    assert ingest(drop(data)).state == "ready"
    record = ingest(drop(data.replace(b"ZVAL2   =  ", b"ZVAL2   =\x01\xb4")))
    assert (record.state, "cannot be decompressed" in record.reason) == ("quarantined", True), record.reason


def test_in_a_batch_a_short_frame_counts_like_one_that_was_given_up(drop):
    part = frame_bytes(OBJECT)[:-BLOCK]
    early, late = ingest(drop(part), patience="batch"), ingest(drop(part), patience="overdue")
    assert (early.state, late.state) == ("incomplete", "quarantined")
    assert (early.file_sha, early.descriptors, early.facts) == (late.file_sha, late.descriptors, late.facts)
    assert early.descriptors is not None
    assert ingest(drop(part)).file_sha == ""  # while somebody may still be writing it is no content


def test_damage_is_quarantined_at_once(drop):
    for data in (
        b"hello, I am a text file with a misleading name",
        header_bytes({"SIMPLE": True, "BITPIX": 3}),
    ):
        record = ingest(drop(data.ljust(4000)))
        assert (record.state, len(record.file_sha)) == ("quarantined", 64)
        assert record.reason


def test_two_images_are_no_raw_frame(drop):
    assert "2 image extensions" in ingest(drop(frame_bytes() + image_bytes(noise()))).reason


def test_a_larger_image_than_the_array_is_refused(drop):
    assert "more than the array" in ingest(drop(frame_bytes(pixels=np.ones((2, 2048), "f4")))).reason


def test_gone_is_vanished(tmp_path):
    assert ingest(str(tmp_path / "N1.fits")).state == "vanished"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "N1.fits")
    assert ingest(str(tmp_path / "N1.fits")).state == "refused"


def test_touched_while_read_is_told_to_the_caller(drop, monkeypatch):
    path = drop(frame_bytes())
    monkeypatch.setattr("pipeline.files.structure.os.fstat", _aging(os.fstat))
    with pytest.raises(FileChanged):
        ingest(path)


def _aging(real):
    """fstat whose second look shows a later change."""
    looks = []

    def fstat(fd):
        st = real(fd)
        looks.append(fd)
        fields = {name: getattr(st, name) for name in dir(st) if name.startswith("st_")}
        return SimpleNamespace(**{**fields, "st_ctime_ns": st.st_ctime_ns + len(looks)})

    return fstat


def test_errors_of_the_world_are_raised(drop, monkeypatch):
    def stale(*args, **options):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("pipeline.files.structure.os.open", stale)
    with pytest.raises(OSError, match="Stale"):
        ingest(drop(frame_bytes()))


def test_names_that_are_no_text_are_kept(tmp_path):
    name = os.fsencode(tmp_path) + b"/N\xff\n$(x).fits"
    with open(name, "wb") as file:
        file.write(frame_bytes())
    assert ingest(os.fsdecode(name)).state == "ready"
