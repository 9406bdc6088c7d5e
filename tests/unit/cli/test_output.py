"""What commands print for people."""

import pytest

from daemon.cli.output import console, table

PATH = "/data/" + "a long name of a folder/" * 20 + "N20160102S0366_bpm.fits"


@pytest.mark.parametrize("soft", [True, False])
def test_a_line_in_a_pipe_is_never_folded(capsys, soft):
    console().print(table(("file", ""), [(PATH, f"{PATH} is another file now")]), soft_wrap=soft)
    console().print(f"{PATH} is not there")
    out = capsys.readouterr().out
    assert [line.count(PATH) for line in out.splitlines()[1:]] == [2, 1]


def test_a_told_width_is_kept(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    console().print(table(("file",), [(PATH,)]))
    assert max(map(len, capsys.readouterr().out.splitlines())) == 80
