"""How rows are put together on the page."""

import pytest

from daemon.web.signs import _runs


def row(exposure_time, what="dark", role="", left_out=None):
    same = {"filter": "", "state": "in use", "left_out": left_out}
    return {"what": what, "exposure_time": exposure_time, "role": role, **same}


@pytest.mark.parametrize("times", [(20.0049, 20.0051, 20.005), (60.0, 60.01, 60.0), (None, None, None)])
def test_calibrations_of_one_exposure_time_are_one_line(times):
    assert [len(run) for run in _runs([row(t) for t in times])] == [3]


def test_others_are_lines_of_their_own():
    rows = [row(20.0), row(20.02), row(20.02, "flat"), row(20.02, "science", "science"), row(20.02)]
    rows.append(row(20.02, left_out={"by": "product", "reason": "light in it"}))
    assert [len(run) for run in _runs(rows)] == [1, 1, 1, 1, 1, 1]
