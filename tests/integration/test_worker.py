"""One job through the worker: what it leaves on disk and says, and what it does when it cannot."""

import json
from dataclasses import replace

import numpy as np
import pytest
import structlog
from astropy.io import fits

from daemon import logs
from daemon.model.jobs import CalInput, Input, JobSpec
from daemon.work import worker
from pipeline.errors import BadFrame, StopRequested
from pipeline.files.read import read_measures, read_provenance
from pipeline.files.structure import read_file
from pipeline.simulate import simulate_night


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    simulate_night(folder, "tiny")
    return folder


def inputs_of(paths):
    found = []
    for path in sorted(paths):
        facts = read_file(path)
        found.append(Input(str(path), path.name, facts.file_sha, facts.data_sha, "", "2016-01-02T06:00:00"))
    return tuple(found)


@pytest.fixture
def darks(night, tmp_path):
    """The job that makes the dark of the tiny night."""
    return JobSpec(
        key="0123456789abcdef" * 4,
        recipe="makeProcessedDark",
        recipe_version=1,
        group="g" * 16,
        inputs=inputs_of(night.glob("N20160102S042*.fits")),
        notes=("warning: fewer frames than wanted",),
        name="N20160102S0423_dark",
        night="20160102",
        time_stamp="2016-01-02T06:10:00+00:00",
        products=str(tmp_path),
        staging=str(tmp_path / ".staging" / "key.1"),
        group_id=5,
    )


def run(spec, should_stop=lambda: False):
    return worker.run({**spec.to_json(), "job_id": 7}, should_stop)


def staged(spec, tmp_path):
    folder = tmp_path / ".staging"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_product_tells_what_it_was_made_of(darks, tmp_path):
    result = run(darks)
    assert staged(darks, tmp_path) == ["key.1.fits", "key.1.png"]
    with fits.open(result["fits"]) as product:
        header = product[0].header
        assert header["JOBKEY"] == darks.key
        assert (header["GROUPID"], header["RECIPE"], header["VERSION"]) == ("g" * 16, "makeProcessedDark", 1)
        assert header["DATE"] == "2016-01-02T06:10:00.000"
        assert "warning: fewer frames than wanted" in list(header["HISTORY"])
    provenance, history = read_provenance(result["fits"])
    assert [(name, role) for name, _, role in provenance] == [(i.name, "input") for i in darks.inputs]
    assert [sha for _, sha, _ in provenance] == [i.file_sha for i in darks.inputs]
    assert [step for step, _, _ in history] == [s["step"] for s in result["steps"]][1:-1]
    assert result["sha256"] == read_file(result["fits"]).file_sha
    assert {"PROCESSED", "DARK"} <= set(result["tags"])
    assert read_measures(result["fits"]) == result["quality"]["measures"]
    assert {"read_noise", "rate", "hot"} <= set(result["quality"]["measures"])
    assert result["descriptors"]["exposure_time"] == pytest.approx(20.002)
    assert json.loads(json.dumps(result)) == result


def test_levels_are_cards_of_the_header_with_their_words(darks):
    levels = {"processed_dark": (2, "usable: 12.0 days before (0 best, 3 risk)")}
    with fits.open(run(replace(darks, levels=levels))["fits"]) as product:
        header = product[0].header
    assert (header["DARKLEV"], header.comments["DARKLEV"]) == levels["processed_dark"]


def test_of_a_mask_the_pixels_are_counted_that_another_had_not(darks, night, tmp_path):
    """And its bytes are the same, whatever it is compared with."""
    names = [*night.glob("N20160102S03[678]*.fits"), *night.glob("N20160103S04*.fits")]
    mask = replace(darks, recipe="makeProcessedBPM", name="N20160102S0373_bpm", inputs=inputs_of(names))
    alone = run(mask)
    figures = alone["quality"]["measures"]
    bad = fits.getdata(alone["fits"]) != 0
    assert figures["bad"][0] == pytest.approx(bad.mean())
    assert "new" not in figures
    other = tmp_path / "other.fits"
    with fits.open(alone["fits"]) as product:
        some = np.flatnonzero(product["SCI"].data)[:7]
        product["SCI"].data.flat[some] = 0
        product.writeto(other)
    for name, new in ((other, 7), (alone["fits"], 0), (tmp_path / "gone.fits", None)):
        again = run(replace(mask, compare=str(name), staging=f"{mask.staging}{new}"))
        assert again["sha256"] == alone["sha256"]
        found = again["quality"]["measures"].get("new", [None])[0]
        assert found == (None if new is None else pytest.approx(new / bad.size))


def test_the_same_job_gives_the_same_bytes(darks, tmp_path):
    first = run(darks)
    second = run(replace(darks, attempt=2, staging=str(tmp_path / ".staging" / "key.2")))
    assert first["sha256"] == second["sha256"]


def test_a_stop_is_heard_between_two_steps_and_leaves_nothing(darks, tmp_path):
    asked = iter([False, False, True])
    with pytest.raises(StopRequested, match="before addDQ"):
        run(darks, lambda: next(asked))
    assert staged(darks, tmp_path) == []


def test_other_pixels_than_were_planned_with_are_refused_by_name(darks, tmp_path):
    changed = replace(darks.inputs[1], data_sha="0" * 64)
    with pytest.raises(BadFrame, match=r"N20160102S0424\.fits") as caught:
        run(replace(darks, inputs=(darks.inputs[0], changed, darks.inputs[2])))
    assert caught.value.frame == "N20160102S0424.fits"
    assert staged(darks, tmp_path) == []


def test_a_calibration_made_again_since_is_no_failure_of_the_data(darks, night):
    mask = night / "bpm_20010317_niri_niri_11_full_1amp.fits"
    with pytest.raises(OSError, match="replaced since this job was planned"):
        run(replace(darks, calibrations=(CalInput("static_bpm", str(mask), mask.name, "0" * 64, "k"),)))


def test_a_raw_file_that_is_gone_is_an_error_of_the_file_system(darks):
    lost = replace(darks.inputs[0], path=darks.inputs[0].path + ".gone")
    with pytest.raises(FileNotFoundError):
        run(replace(darks, inputs=(lost, *darks.inputs[1:])))


def test_a_product_that_does_not_read_back_is_not_handed_over(darks, tmp_path, monkeypatch):
    from pipeline import produce
    from pipeline.errors import DamagedFile

    def torn(path, sha):
        raise DamagedFile(f"{path}: torn")

    monkeypatch.setattr(produce, "verify_product", torn)
    with pytest.raises(DamagedFile):
        run(darks)
    assert staged(darks, tmp_path) == []


def test_every_line_of_a_job_carries_job_recipe_and_group(darks, capsys):
    logs.configure(format="json")
    try:
        run(darks)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["event"] for line in lines} == {"step_finished"}
    assert all((line["job"], line["recipe"], line["group"]) == (7, "makeProcessedDark", 5) for line in lines)
