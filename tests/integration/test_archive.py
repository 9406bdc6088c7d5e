"""An archive user's day: a folder as the archive hands it out becomes products by one command, and what was
left out is said with the reason."""

import bz2
import io
import json
import os
import pty
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.simulate import simulate_night

NIRID = str(Path(sys.executable).with_name("nirid"))


def other_instrument(number):
    header = fits.Header([("INSTRUME", "GMOS-N"), ("OBSTYPE", "OBJECT")])
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(np.full((8, 8), number, "i2"))]).writeto(out)
    return out.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A small night as the archive sends it: frames compressed, a tar file, another instrument, a text."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("archive")
    simulate_night(raw, preset="tiny")
    files = sorted(raw.glob("*.fits"))
    with tarfile.open(folder / "gemini_data.tar", "w") as tar:
        for path in files:
            packed = folder / f"{path.name}.bz2"
            packed.write_bytes(bz2.compress(path.read_bytes(), 1))
            tar.add(packed, arcname=packed.name)
            packed.unlink()
        (folder / "md5sums.txt").write_text("x")
        tar.add(folder / "md5sums.txt", arcname="md5sums.txt")
    for number in range(3):
        (folder / f"N20160102S200{number}.fits.bz2").write_bytes(bz2.compress(other_instrument(number)))
    (folder / "copy.fits").write_bytes(files[0].read_bytes())
    return folder, len(files)


def run(folder, place, *words, **how):
    command = [NIRID, "run", "--until-idle", "--drop", folder, "--products", place / "products"]
    command += ["--state", place / "state", "--workers", "2", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, **how)


def reasons(answer):
    return {(one["state"], one["reason"]): one["files"] for one in answer["left_out"]}


def test_a_tar_file_is_not_opened_unless_that_is_asked_for(archive, tmp_path):
    folder, _ = archive
    done = run(folder, tmp_path, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    found = reasons(json.loads(done.stdout))
    assert found["not opened", "a tar file; --unpack takes the frames out of it"] == 1
    assert found["refused", "the instrument is GMOS-N, not NIRI"] == 3
    assert not (folder / "gemini_data").exists()
    only_live = subprocess.run(
        [NIRID, "run", "--unpack", "--drop", folder, "--state", tmp_path / "s"],
        capture_output=True,
        text=True,
    )
    assert only_live.returncode == 2


@pytest.mark.slow
def test_one_command_makes_products_and_says_what_was_left_out(archive, tmp_path):
    folder, count = archive
    done = run(folder, tmp_path, "--unpack", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert {p["name"].rpartition("_")[2] for p in answer["products"]} == {"dark", "bpm", "flat", "image"}
    assert answer["failed"] == answer["blocked"] == []
    assert len(os.listdir(folder / "gemini_data")) == count
    found = reasons(answer)
    assert found["refused", "the instrument is GMOS-N, not NIRI"] == 3
    assert found["in a tar file", "name of another kind than *.fits"] == 1
    assert sum(files for (state, _), files in found.items() if state == "copy") == 1
    again = run(folder, tmp_path, "--unpack")
    assert again.returncode == 0
    assert "files are in no product:" in again.stdout
    assert "the instrument is GMOS-N, not NIRI" in again.stdout


def test_a_tar_file_that_is_damaged_is_said_and_the_rest_is_reduced(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "bad.tar").write_bytes(b"no tar file at all" * 40)
    (drop / "N20160102S2000.fits").write_bytes(other_instrument(1))
    done = run(drop, tmp_path, "--unpack", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert ["bad.tar: cannot be unpacked" in why for why in answer["blocked"]] == [True]
    assert reasons(answer) == {("refused", "the instrument is GMOS-N, not NIRI"): 1}
    assert set(os.listdir(drop)) == {"bad.tar", "N20160102S2000.fits"}


def test_at_a_terminal_there_is_a_bar_and_no_log_beside_it(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "N20160102S2000.fits").write_bytes(other_instrument(1))
    master, slave = pty.openpty()
    command = [
        NIRID,
        "run",
        "--until-idle",
        "--drop",
        drop,
        "--products",
        tmp_path / "p",
        "--state",
        tmp_path / "s",
    ]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=slave, stdout=subprocess.PIPE, stdin=slave, env=environment)
    os.close(slave)
    said = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # closed at the other end
            break
        if not piece:
            break
        said += piece
    out = process.communicate(timeout=120)[0]
    os.close(master)
    assert process.returncode == 0
    assert b"reading files" in said or b"reducing" in said
    assert b"file_ingested" not in said
    assert b"not NIRI" in out
