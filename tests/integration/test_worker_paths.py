"""A bad-pixel mask that the configuration names by path reaches the job's frames and its provenance."""

import pytest

from daemon.model.jobs import Input, JobSpec
from daemon.work import worker
from pipeline.files.read import read_frame, read_provenance
from pipeline.files.structure import read_file
from pipeline.simulate import simulate_night

STATIC = "bpm_20010317_niri_niri_11_full_1amp.fits"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    simulate_night(folder, "tiny")
    return folder


def darks(night, tmp_path, parameters, names=(None, None, None)):
    inputs = []
    for path, name in zip(sorted(night.glob("N20160102S042*.fits")), names, strict=True):
        facts = read_file(path)
        what = (facts.file_sha, facts.data_sha, "", "2016-01-02T06:00:00")
        inputs.append(Input(str(path), name or path.name, *what))
    return JobSpec(
        key="k" * 64,
        recipe="makeProcessedDark",
        recipe_version=1,
        group="g" * 16,
        inputs=tuple(inputs),
        parameters=parameters,
        name="N20160102S0423_dark",
        night="20160102",
        time_stamp="2016-01-02T06:10:00+00:00",
        products=str(tmp_path),
        staging=str(tmp_path / "staged"),
    )


@pytest.mark.parametrize("parameters", [{}, {"addDQ:user_bpm": "mask"}, {"addDQ:static_bpm": "mask"}])
def test_masks_by_path(night, tmp_path, parameters):
    parameters = {key: str(night / STATIC) for key in parameters}
    spec = darks(night, tmp_path, parameters)
    result = worker.run(spec.to_json(), lambda: False)
    roles = {role for _, _, role in read_provenance(result["fits"])[0]}
    bad = int((read_frame(result["fits"]).dq & 1).astype(bool).sum())
    assert roles == {"input", *(key.partition(":")[2] for key in parameters)}
    assert (bad > 0) is bool(parameters)


def test_names_that_no_header_can_hold(night, tmp_path):
    result = worker.run(
        darks(night, tmp_path, {}, ["new\nline.fits", "\u65e5.fits", "\udcff.fits"]).to_json(), bool
    )
    names = [name for name, _, _ in read_provenance(result["fits"])[0]]
    assert names == ["new\\nline.fits", "\\u65e5.fits", "\\udcff.fits"]
    assert [read_frame(result["fits"]).header[f"IMCMB{n:03d}"] for n in (1, 2, 3)] == names
