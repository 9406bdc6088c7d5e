"""Which exposure a file is: names, copies, and what a step writes."""

import bz2
import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce
from pipeline.files.outputs import WouldOverwrite
from pipeline.files.read import read_provenance
from tests.integration.inputs.helpers import DARK, copy, history, raw, science


def digest(paths):
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]


def test_frames_of_one_name_in_two_folders_are_not_mixed(top, work):
    Reduce(files=science(top)).runr()
    names = [f"{'on' if i < 4 else 'off'}/img{i % 4}.fits" for i in range(8)]
    files = [copy(path, work / name) for path, name in zip(science(top), names, strict=True)]
    before = digest(files)
    reduction = Reduce(files=files, uparms={"skyCorrect:write_outputs": True})
    reduction.runr()
    assert reduction.output_filenames == ["img1_image.fits"]
    with fits.open("img1_image.fits") as ours, fits.open("N20160102S0271_image.fits") as plain:
        np.testing.assert_array_equal(ours["SCI"].data, plain["SCI"].data)
        assert {row[0] for row in read_provenance(Path("img1_image.fits"))[0]} >= set(names)
    assert digest(files) == before
    assert len(list(work.glob("*_skyCorrected.fits"))) == 3


def test_every_frame_of_a_step_is_written(top, work):
    files = [
        copy(path, work / f"{folder}/M82_1.fits") for path, folder in zip(science(top), "abc", strict=False)
    ]
    reduction = Reduce(files=files, recipename="prepare")
    reduction.runr()
    assert reduction.output_filenames == [f"{folder}-M82_1_prepared.fits" for folder in "abc"]
    times = {fits.getheader(path)["UT"] for path in reduction.output_filenames}
    assert len(times) == 3


def test_a_product_of_another_exposure_is_not_replaced(top, work, capsys):
    long = [copy(p, work / f"l/dark_{i}.fits") for i, p in enumerate(raw(top, range(423, 426)))]
    short = [copy(p, work / f"s/dark_{i}.fits") for i, p in enumerate(raw(top, range(463, 466)))]
    for _ in range(2):  # again is the same names
        one, two = Reduce(files=long), Reduce(files=short)
        one.runr()
        two.runr()
        assert one.output_filenames == ["dark_0_dark.fits"]
        assert "dark_0_dark.fits is of the exposure of 2016-01-02" in capsys.readouterr().err
    assert len(list(work.glob("*_dark.fits"))) == 2
    assert [fits.getval(p, "EXPTIME") for p in (*one.output_filenames, *two.output_filenames)] == [
        20.002,
        1.001,
    ]


@pytest.mark.parametrize("kind", ["other name", "other folder", "gzip", "bzip2", "tiles", "type", "comment"])
def test_an_exposure_counts_once(top, work, kind):
    darks = raw(top, range(423, 426))
    Reduce(files=darks).runr()
    again = []
    for path in darks:
        name, content = Path(path).name, Path(path).read_bytes()
        copied = work / "c" / {"other name": f"{name[:-5]}-1.fits", "comment": f"A{name}"}.get(kind, name)
        copied.parent.mkdir(exist_ok=True)
        if kind in ("gzip", "bzip2"):
            content = gzip.compress(content) if kind == "gzip" else bz2.compress(content)
            copied = Path(f"{copied}{'.gz' if kind == 'gzip' else '.bz2'}")
        copied.write_bytes(content)
        if kind == "comment":
            fits.setval(copied, "OBSERVER", value="somebody else")
        if (
            kind == "type"
        ):  # as software leaves it that turns integers into floats, or floats into longer ones
            with fits.open(path) as file:
                file[1].data = file[1].data.astype("f8")
                file.writeto(copied, overwrite=True)
        if kind == "tiles":
            with fits.open(path) as file:
                image = fits.CompImageHDU(
                    file[1].data, file[1].header, compression_type="GZIP_1", quantize_level=0
                )
                fits.HDUList([fits.PrimaryHDU(header=file[0].header), image]).writeto(copied, overwrite=True)
        again.append(str(copied))
    reduction = Reduce(files=[*again, *darks], out="o")
    reduction.runr()
    with fits.open(DARK) as once, fits.open(reduction.output_filenames[0]) as twice:
        assert Path(reduction.output_filenames[0]).name == DARK
        np.testing.assert_array_equal(once["VAR"].data, twice["VAR"].data)
        assert twice[0].header["NCOMBINE"] == 3
    assert "left out: the same exposure as" in history(reduction.output_filenames[0])


@pytest.mark.parametrize(
    "name", ["a\x01.fits", "b\n.fits", "\u00e9.fits", "\udcff.fits", "%s 'q'.fits", "", "none.fits"]
)
def test_what_is_left_out_is_told_in_the_product_whatever_it_is_called(top, work, name):
    darks = raw(top, range(423, 426))
    if name and name != "none.fits":
        shutil.copy(darks[0], work / name)
    Reduce(files=[*darks, name], out="o").runr()
    told = ascii(name)[1:-1] if name else "it is empty; left out"
    assert told.replace("\\'", "'") in history(work / "o" / DARK)
    assert "left out" in history(work / "o" / DARK)


def test_exposures_that_look_alike_are_all_used(top, work):
    """The same pixels, as of a shutter that stays closed, but other times and labels; or one time alone."""
    darks = raw(top, range(423, 426))
    blank = [copy(path, work / Path(path).name) for path in darks]
    for path in blank[:2]:
        with fits.open(path, mode="update") as file:
            file[1].data[:] = 5
    reduction = Reduce(files=blank, uparms={"judgeFrames:skip_primitive": True})
    reduction.runr()
    assert fits.getval(reduction.output_filenames[0], "NCOMBINE") == 3
    same_time = [copy(path, work / f"t{i}.fits", UT="01:02:03") for i, path in enumerate(darks)]
    reduction = Reduce(files=same_time)
    reduction.runr()
    assert fits.getval(reduction.output_filenames[0], "NCOMBINE") == 3


def test_what_a_step_writes_replaces_nothing_of_other_exposures(top, work):
    one = [copy(path, work / "a" / f"img{i}.fits") for i, path in enumerate(raw(top, range(423, 426)))]
    two = [copy(path, work / "b" / f"img{i}.fits") for i, path in enumerate(raw(top, range(463, 466)))]
    for files in (one, two, one):
        Reduce(files=files, uparms={"prepare:write_outputs": True}).runr()
    found = {path.name: fits.getval(path, "EXPTIME") for path in sorted(work.glob("*_prepared.fits"))}
    assert len(found) == 6
    assert all(seconds == (1.001 if "-" in name else 20.002) for name, seconds in found.items())
    for path in work.glob("*_prepared.fits"):
        path.unlink()
    (work / "img1_prepared.fits").write_text("mine")
    with pytest.raises(WouldOverwrite, match="img1_prepared"):
        Reduce(files=one, uparms={"prepare:write_outputs": True}).runr()
    assert [path.read_text() for path in work.glob("*_prepared.fits")] == ["mine"]
