"""What a worker makes of frames: the same bytes with any number of threads, and within its memory."""

from __future__ import annotations

import hashlib
import resource
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.model.jobs import CalInput, Input, JobSpec
from daemon.work import worker
from pipeline.errors import BadFrame
from pipeline.files.read import read_frame
from pipeline.files.structure import read_file
from pipeline.files.write import write_product
from pipeline.frame import COSMIC_RAY
from tests.integration.test_special_cases import FWHM, OFFSETS, STARS, Star, dark, field, flat, shots

RATE = 700.0
WELL = Star(-2.0, 6.0, 7.5)  # fills its pixels
NINE = tuple((x + 0.4 * k, y - 0.3 * k) for k in range(2) for x, y in OFFSETS)[:9]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The job of `reduce` on nine dithers, with dark and flat on disk."""
    folder = tmp_path_factory.mktemp("raw")
    inputs, cals = [], []
    for shot in shots(NINE, field=field((*STARS, WELL))):
        path = folder / f"{shot.name}.fits"
        shot.render(shot.number).write(path)
        facts, ut = read_file(path), shot.start.isoformat()
        inputs.append(Input(str(path), path.name, facts.file_sha, facts.data_sha, "", ut))
    for role, frame in (("processed_dark", dark()), ("processed_flat", flat())):
        path = folder / f"{role}.fits"
        sha = write_product(path, frame, provenance=[], history=[], time_stamp="2016-01-02T00:00:00")
        cals.append(CalInput(role, str(path), path.name, sha, role))
    return JobSpec(
        key="k" * 64,
        recipe="reduce",
        recipe_version=1,
        group="g" * 16,
        inputs=tuple(inputs),
        calibrations=tuple(cals),
        name="N_image",
        night="20160102",
        time_stamp="2016-01-02T06:10:00+00:00",
        products=str(folder.parent / "products"),
        staging=str(folder.parent / "products" / ".staging" / "k.1"),
    )


@pytest.fixture
def run(tmp_path):
    """Runs a job and answers with the hash of its product."""

    def run(spec):
        job = {**spec.to_json(), "job_id": 1, "cache": str(tmp_path)}
        return worker.run(job, lambda: False)["sha256"]

    return run


def look(spec, first, last):
    """The first look at frame `last`, the frames from `first` on remembered."""
    return replace(spec, recipe="firstLook", name="N_firstlook", inputs=spec.inputs[first : last + 1])


def test_however_many_threads_work_on_it_the_product_is_the_same_bytes(made, tmp_path):
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        found = set()
        for number in (1, 2, 4, 2, 2):
            shared = {"cache": str(tmp_path), "threads": number}
            result = worker.run({**made.to_json(), **shared, "job_id": 1}, lambda: False)
            picture = Path(result["png"]).read_bytes()
            found.add((result["sha256"], hashlib.sha256(picture).hexdigest(), *result["notes"]))
    finally:
        sys.setswitchinterval(switch)
    assert len(found) == 1


def test_a_frame_remembers_what_those_before_it_saturated(made):
    """The star is saturated: where it was, the next frames are flagged, alone they are not."""

    def remembered(first):
        job = {**look(made, first, 4).to_json(), "job_id": 1}
        return read_frame(worker.run(job, lambda: False)["fits"]).dq & COSMIC_RAY

    assert 3 < np.count_nonzero(remembered(1)) < 2000
    assert not remembered(4).any()


def test_pixels_are_those_that_were_planned_with(made, run):
    other = replace(made.inputs[4], data_sha="0" * 64)
    with pytest.raises(BadFrame, match="pixels"):
        run(replace(look(made, 4, 4), inputs=(other,)))


def test_a_first_look_shows_what_the_frame_is_worth(made):
    result = worker.run({**look(made, 0, 2).to_json(), "job_id": 1}, lambda: False)
    frame = read_frame(result["fits"])
    assert frame.header["ORIGNAME"] == made.inputs[2].name
    assert result["quality"]["MEANFWHM"] == pytest.approx(FWHM * 0.1167, rel=0.05)
    assert result["quality"]["NSOURCES"] >= len(STARS)
    assert result["quality"]["BGRATE"] == pytest.approx(RATE, rel=0.02)
    assert frame.sci[frame.dq == 0].mean() > 0  # the sky is in it


def test_a_first_look_needs_no_calibration(made, run):
    skip = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
    spec = replace(look(made, 2, 2), calibrations=(), parameters=skip)
    assert run(spec) == run(spec) != run(look(made, 2, 2))


def test_a_large_group_takes_no_private_memory_for_its_planes(made, run, tmp_path, monkeypatch):
    """Nine frames have 6 MB of planes, and twice that during a step; more than a worker of 10 MB may have."""

    def peak(limit_mb):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit_mb << 20, limit_mb << 20))
        tracemalloc.start()
        try:
            return run(made), tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    run(made)
    product, private = peak(1500)
    same, on_disk = peak(10)
    assert same == product
    assert on_disk < private - 6
    assert not any(path.is_file() for path in tmp_path.iterdir())
