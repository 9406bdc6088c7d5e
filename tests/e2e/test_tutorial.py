"""The tutorial's script, exactly as the interface prints it, in an empty folder beside the raw frames."""

import json
import subprocess
import sys

import numpy as np
import pytest

import pipeline
from pipeline.files.read import read_provenance
from pipeline.files.write import verify_product
from pipeline.simulate import simulate_night
from pipeline.simulate.verify import check_products

SCRIPT = """\
import glob
import pipeline
from pipeline import Reduce, cal_service, dataselect, logutils

logutils.config(file_name='niriim_tutorial.log')
caldb = cal_service.set_local_database()
caldb.init("w")

all_files = glob.glob('../playdata/example1/*.fits')
for dark in dataselect.select_data(all_files, ['DARK']):
    ad = pipeline.open(dark)
    print(dark, '  ', ad.exposure_time())

darks1s  = dataselect.select_data(all_files, ['DARK'], [], dataselect.expr_parser('exposure_time==1'))
darks20s = dataselect.select_data(all_files, ['DARK'], [], dataselect.expr_parser('exposure_time==20'))
flats    = dataselect.select_data(all_files, ['FLAT'])
stdstar  = dataselect.select_data(all_files, [], [], dataselect.expr_parser('object=="FS 17"'))
target   = dataselect.select_data(all_files, ['IMAGE'], ['FLAT'], dataselect.expr_parser('object!="FS 17"'))

reduce_darks = Reduce()
reduce_darks.files.extend(darks20s)
reduce_darks.runr()

for bpm in dataselect.select_data(all_files, ['BPM']):
    caldb.add_cal(bpm)

reduce_bpm = Reduce()
reduce_bpm.files.extend(flats)
reduce_bpm.files.extend(darks1s)
reduce_bpm.recipename = 'makeProcessedBPM'
reduce_bpm.runr()
bpm = reduce_bpm.output_filenames[0]

reduce_flats = Reduce()
reduce_flats.files.extend(flats)
reduce_flats.uparms = [('addDQ:user_bpm', bpm)]
reduce_flats.runr()

reduce_std = Reduce()
reduce_std.files.extend(stdstar)
reduce_std.uparms = [('addDQ:user_bpm', bpm)]
reduce_std.uparms.append(('darkCorrect:do_cal', 'skip'))
reduce_std.runr()

reduce_target = Reduce()
reduce_target.files.extend(target)
reduce_target.uparms = [('addDQ:user_bpm', bpm)]
reduce_target.uparms.append(('skyCorrect:scale_sky', False))
reduce_target.runr()
"""

PRODUCTS = {
    "dark": "N20160102S0423_dark.fits",
    "bpm": "N20160102S0373_bpm.fits",
    "flat": "N20160102S0373_flat.fits",
    "standard": "N20160102S0296_image.fits",
    "science": "N20160102S0271_image.fits",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working directory after the script has run."""
    top = tmp_path_factory.mktemp("tutorial")
    simulate_night(top / "playdata" / "example1", "example1")
    work = top / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], cwd=work, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (top / "said").write_text(done.stdout)
    (top / "told").write_text(done.stderr)
    return work


def test_the_printed_script_is_the_tested_one(shared):
    page = (shared / "design" / "interface.md").read_text()
    assert SCRIPT in page


def test_the_five_files_and_nothing_half_written(folder):
    found = {path.name for path in folder.iterdir()}
    assert found == {*PRODUCTS.values(), "cal_manager.db", "niriim_tutorial.log"}
    for name in PRODUCTS.values():
        verify_product(folder / name)


def test_they_are_right(folder):
    night = folder.parent / "playdata" / "example1"
    checks = check_products(night, {kind: folder / name for kind, name in PRODUCTS.items()})
    assert len(checks) > 10
    assert [check.sentence for check in checks if not check.ok] == []


def test_what_it_prints_and_logs(folder):
    printed = (folder.parent / "said").read_text().splitlines()
    assert len(printed) == 20
    assert all(line.startswith("../playdata/example1/N2016010") for line in printed)
    assert {line.split()[1] for line in printed} == {"20.002", "1.001"}
    log = (folder / "niriim_tutorial.log").read_text()
    told = (folder.parent / "told").read_text()
    for text in (log, told):
        assert text.count("stackDarks") == 1  # no double messages
        assert text.count("wrote ") == 5


def test_the_store_has_the_calibrations(folder, monkeypatch):
    monkeypatch.chdir(folder)
    db = pipeline.cal_service.LocalDB("cal_manager.db")
    assert {name for name, _ in db.list_files()} == {
        PRODUCTS["dark"],
        PRODUCTS["bpm"],
        PRODUCTS["flat"],
        PRODUCTS["standard"],  # for its zero point
        "bpm_20010317_niri_niri_11_full_1amp.fits",
    }
    assert db.get_cal("../playdata/example1/N20160102S0270.fits", "processed_dark") == str(
        folder / PRODUCTS["dark"]
    )


def test_products_say_what_they_are_and_how_they_were_made(folder):
    ad = pipeline.open(folder / PRODUCTS["science"])
    assert {"NIRI", "PROCESSED", "PROCESSED_SCIENCE", "IMAGE"} <= ad.tags
    assert not ad.is_in_adu()
    assert ad.sci.shape == ad.var.shape == ad.dq.shape
    assert ad.data_label().endswith("-SQ-IMAGE")
    assert max(ad.shape) > 1024
    inputs, steps = read_provenance(folder / PRODUCTS["science"])
    roles = [role for _, _, role in inputs]
    assert roles.count("input") == 10
    assert {"processed_dark", "processed_flat", "user_bpm", "static_bpm"} <= set(roles)
    parameters = {step: values for step, values, _ in steps}
    assert parameters["skyCorrect"]["scale_sky"] is False
    assert np.isfinite(ad.sci).all()
    assert {"PROCESSED", "DARK"} <= pipeline.open(folder / PRODUCTS["dark"]).tags
    assert {"PROCESSED", "FLAT"} <= pipeline.open(folder / PRODUCTS["flat"]).tags
    assert {"PROCESSED", "BPM"} <= pipeline.open(folder / PRODUCTS["bpm"]).tags


def test_the_commands_do_the_same(folder, tmp_path):
    """From a shell, with lists: the dark is the same bits as the script's."""

    def nirid(*words):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "daemon", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    raw = str(folder.parent / "playdata" / "example1" / "*.fits")
    nirid("caldb", "init")
    nirid("dataselect", raw, "--tags", "DARK", "--expr", "exposure_time==20", "-o", "darks20s.lis")
    lines = (tmp_path / "darks20s.lis").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 10
    answer = json.loads(nirid("reduce", "@darks20s.lis", "--json"))
    assert answer == {"recipe": "makeProcessedDark", "products": [PRODUCTS["dark"]]}
    assert (tmp_path / PRODUCTS["dark"]).read_bytes() == (folder / PRODUCTS["dark"]).read_bytes()
    assert nirid("caldb", "list").split()[0] == PRODUCTS["dark"]
