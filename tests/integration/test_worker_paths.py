"""A bad-pixel mask that the configuration names by path reaches the job's frames and its provenance."""

import pytest

from daemon import worker
from daemon.jobspec import Input, JobSpec
from pipeline.fitsio import read_frame, read_provenance
from pipeline.fitsreader import read_file
from pipeline.simulate import simulate_night

STATIC = "bpm_20010317_niri_niri_11_full_1amp.fits"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    simulate_night(folder, "tiny")
    return folder


@pytest.mark.parametrize("parameters", [{}, {"addDQ:user_bpm": "mask"}, {"addDQ:static_bpm": "mask"}])
def test_masks_by_path(night, tmp_path, parameters):
    parameters = {key: str(night / STATIC) for key in parameters}
    inputs = []
    for path in sorted(night.glob("N20160102S042*.fits")):
        facts = read_file(path)
        inputs.append(Input(str(path), path.name, facts.file_sha, facts.data_sha, "", "2016-01-02T06:00:00"))
    spec = JobSpec(
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
    result = worker.run(spec.to_json(), lambda: False)
    roles = {role for _, _, role in read_provenance(result["fits"])[0]}
    bad = int((read_frame(result["fits"]).dq & 1).astype(bool).sum())
    assert roles == {"input", *(key.partition(":")[2] for key in parameters)}
    assert (bad > 0) is bool(parameters)
