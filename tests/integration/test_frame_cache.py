"""Calibrated frames are kept: the same product to the last bit, with the work on each frame done once."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon import worker
from daemon.jobspec import CalInput, Input, JobSpec
from pipeline import prefix, produce
from pipeline.errors import BadFrame
from pipeline.fitsio import read_frame, write_product
from pipeline.fitsreader import read_file
from pipeline.frame import COSMIC_RAY
from pipeline.framecache import FrameCache
from pipeline.recipes import RECIPES
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
def run(tmp_path, monkeypatch):
    """Runs a job and answers with (hash of the product, raw frames that were read, frames calibrated)."""
    count = {"read": 0, "calibrated": 0}
    step = RECIPES["reduce"].prefix - 1
    flat_correct = RECIPES["reduce"].steps[step].primitive

    def counted_read(source):
        count["read"] += 1
        return read_input(source)

    def counted_step(*arguments):
        count["calibrated"] += 1
        return each(*arguments)

    read_input, each = produce.read_input, flat_correct.each
    monkeypatch.setattr(produce, "read_input", counted_read)
    monkeypatch.setattr(prefix, "read_input", counted_read)
    object.__setattr__(flat_correct, "each", counted_step)

    def run(spec, cache_mb=100, cache=tmp_path / "cache"):
        count.update(read=0, calibrated=0)
        job = {**spec.to_json(), "job_id": 1, "cache": str(cache), "cache_mb": cache_mb}
        sha = worker.run(job, lambda: False)["sha256"]
        return sha, count["read"], count["calibrated"]

    yield run
    object.__setattr__(flat_correct, "each", each)


def look(spec, first, last):
    """The first look at frame `last`, the frames from `first` on remembered."""
    return replace(spec, recipe="firstLook", name="N_firstlook", inputs=spec.inputs[first : last + 1])


def test_what_is_known_is_not_done_again_and_changes_no_bit(made, run):
    without = run(made, cache_mb=0)
    assert without[1:] == (9, 8)  # the first exposure is left out
    assert run(made) == without
    assert run(made) == (without[0], 0, 0)


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_however_many_threads_work_on_it_the_product_is_the_same_bytes(made, tmp_path, cache_mb):
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        found = set()
        for number in (1, 2, 4, 2, 2):
            shared = {"cache": str(tmp_path / f"cache{number}"), "cache_mb": cache_mb, "threads": number}
            result = worker.run({**made.to_json(), **shared, "job_id": 1}, lambda: False)
            picture = Path(result["png"]).read_bytes()
            found.add((result["sha256"], hashlib.sha256(picture).hexdigest(), *result["notes"]))
    finally:
        sys.setswitchinterval(switch)
    assert len(found) == 1


def test_a_growing_group_takes_up_one_frame_at_a_time(made, run):
    given = [replace(made, inputs=made.inputs[:n]) for n in (5, 6, 7, 9)]
    assert [run(spec)[1:] for spec in given] == [(5, 4), (1, 1), (1, 1), (2, 2)]
    assert run(made)[0] == run(made, cache_mb=0)[0]


def test_first_looks_and_the_stack_share_their_frames(made, run):
    for last in (0, 1, 2, 5, 6):
        spec = look(made, max(0, last - 3), last)  # 30 s apart: three are remembered
        known = run(spec)
        compared = min(last, 2)  # with those before it, which are read again each time
        assert known[1:] == (compared + 1, compared + 1)
        assert known[0] == run(spec, cache_mb=0)[0]
    assert run(replace(made, inputs=made.inputs[:7]))[1:] == (2, 2)


def test_a_remembered_frame_makes_another(made, run):
    """The star is saturated: where it was, the next frames are flagged, alone they are not."""
    alone = replace(made, inputs=made.inputs[3:7], parameters={"removeFirstFrame:remove_first": False})
    run(made)
    assert run(alone)[1:] == (3, 3)  # 90 s on, the fourth remembers the same frames
    job = {**look(made, 1, 4).to_json(), "job_id": 1, "cache": "", "cache_mb": 0}
    remembered = read_frame(worker.run(job, lambda: False)["fits"]).dq & COSMIC_RAY
    assert 3 < np.count_nonzero(remembered) < 2000
    only = {**look(made, 4, 4).to_json(), "job_id": 1}
    assert not (read_frame(worker.run(only, lambda: False)["fits"]).dq & COSMIC_RAY).any()


@pytest.mark.parametrize("what", ["dark", "parameter", "header", "code"])
def test_whatever_goes_in_makes_another_frame(made, run, what, tmp_path, monkeypatch):
    job = look(made, 0, 2)
    assert run(job)[1:] == (3, 3)
    assert run(job)[1:] == (2, 2)  # the two that the last is compared with
    spec = job
    if what == "dark":
        path = tmp_path / "processed_dark.fits"
        other = dark().evolve(sci=dark().sci + np.float32(1))
        sha = write_product(path, other, provenance=[], history=[], time_stamp="2016-01-02T00:00:00")
        cal = CalInput("processed_dark", str(path), path.name, sha, "other")
        spec = replace(job, calibrations=(cal, made.calibrations[1]))
    elif what == "parameter":
        spec = replace(job, parameters={"addVAR:pedestal": False})
    elif what == "header":
        path, data = tmp_path / "edited.fits", bytearray(Path(job.inputs[-1].path).read_bytes())
        at = data.index(b"AIRMASS =")
        data[at + 10 : at + 30] = b"%20.3f" % 1.987
        path.write_bytes(data)
        edited = replace(job.inputs[-1], path=str(path), file_sha=read_file(path).file_sha)
        spec = replace(job, inputs=(*job.inputs[:-1], edited))
    else:
        monkeypatch.setattr(prefix, "code", lambda: "another release")
    known = run(spec)
    assert known[1:] == (3, 3)
    assert known[0] == run(spec, cache_mb=0)[0]


def test_pixels_that_were_planned_with_come_from_the_cache_or_not_at_all(made, run):
    run(look(made, 4, 4))
    other = replace(made.inputs[4], data_sha="0" * 64)
    with pytest.raises(BadFrame, match="pixels"):
        run(replace(look(made, 4, 4), inputs=(other,)))


@pytest.mark.parametrize("harm", ["flipped", "header", "cut", "long", "empty", "foreign"])
def test_a_damaged_entry_is_made_again(made, run, harm, tmp_path):
    job = look(made, 0, 1)
    sha = run(job)[0]
    for path in (tmp_path / "cache").iterdir():
        data = bytearray(path.read_bytes())
        if harm == "flipped":
            data[len(data) // 2] ^= 4
        elif harm == "header":
            data[100] ^= 1
        else:
            data = {"cut": data[:-9], "long": data + b"x", "empty": b"", "foreign": b"SIMPLE  ="}[harm]
        path.write_bytes(data)
    assert run(job) == (sha, 2, 2)
    assert run(job) == (sha, 1, 1)


def test_an_entry_under_another_name_is_not_taken_for_it(tmp_path):
    cache = FrameCache(tmp_path, 1)
    for key in ("one", "other"):
        cache.put(key, {"is": key}, {})
    os.replace(tmp_path / "one.frame", tmp_path / "other.frame")
    assert cache.get("other") is None
    cache.put("other", {"is": "made again"}, {})
    assert cache.get("other") == ({"is": "made again"}, {})


def test_no_room_and_no_folder_are_no_failure(made, run, tmp_path):
    (tmp_path / "file").touch()
    job = look(made, 0, 1)
    sha = run(job, cache_mb=0)[0]
    assert run(job, cache=tmp_path / "file" / "cache") == (sha, 2, 2)
    for last in (1, 2, 3):
        run(look(made, last, last), cache_mb=1)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 1 << 20


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = FrameCache(tmp_path, limit_mb=3)
    plane = {"sci": np.arange(250_000, dtype=np.float32)}
    for key in "abcd":
        cache.put(key, {"of": key}, plane)
    for age, key in enumerate("dcba"):
        assert cache.get(key) is not None
        os.utime(tmp_path / f"{key}.frame", ns=(age, age))
    (tmp_path / "not ours").write_bytes(b"x" * (4 << 20))
    cache.trim()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.frame", "b.frame", "c.frame", "not ours"]
    data, planes = cache.get("a")
    assert data == {"of": "a"}
    np.testing.assert_array_equal(planes["sci"], plane["sci"])


def test_a_first_look_shows_what_the_frame_is_worth(made, run):
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
    known = run(spec)
    assert known[1:] == (1, 1)
    assert run(spec) == (known[0], 0, 0)


def test_a_large_group_takes_no_private_memory_for_its_planes(made, run, tmp_path, monkeypatch):
    """Nine frames have 6 MB of planes, and twice that during a step; more than a worker of 10 MB may have."""

    def peak(limit_mb, cache_mb=0):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit_mb << 20, limit_mb << 20))
        tracemalloc.start()
        try:
            return run(made, cache_mb=cache_mb)[0], tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    run(made, cache_mb=0)
    product, private = peak(1500)
    same, on_disk = peak(10)
    assert same == product
    assert on_disk < private - 6
    assert list((tmp_path / "cache").iterdir()) == []
    run(made)
    same, known = peak(10, cache_mb=100)
    assert same == product
    assert known < private - 6


def test_every_prefix_can_be_cached():
    """One step that sees the list's pixels, addDQ; the last of all works on one frame alone."""
    for recipe in RECIPES.values():
        steps = [step.primitive for step in recipe.steps[: recipe.prefix] if not step.primitive.headers_only]
        assert [p.name for p in steps if p.each is None] == ["addDQ"] * bool(steps)
        assert not steps or (
            steps[0].name == "addDQ" and recipe.steps[recipe.prefix - 1].primitive is steps[-1]
        )
