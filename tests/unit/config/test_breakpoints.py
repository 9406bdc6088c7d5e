"""[[breakpoint]]: from when on calibrations are other than before."""

from datetime import UTC, datetime

import pytest

from daemon.config import load as config_load
from daemon.config.load import load
from daemon.config.setting import setting_of
from pipeline.association import CalKind
from pipeline.errors import ConfigError

REST = 'kinds = ["flat"]\nreason = "GCAL exposures raised"\n'


@pytest.fixture
def read(tmp_path):
    def read(*tables):
        path = tmp_path / "nirid.toml"
        path.write_text("".join(f"[[breakpoint]]\n{table}\n" for table in tables))
        return load(path)

    return read


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2014-04-02", datetime(2014, 4, 2, tzinfo=UTC)),
        ('"2014-04-02"', datetime(2014, 4, 2, tzinfo=UTC)),
        ("2014-04-02T06:30:00", datetime(2014, 4, 2, 6, 30, tzinfo=UTC)),
        ("2014-04-02T06:30:00-10:00", datetime(2014, 4, 2, 16, 30, tzinfo=UTC)),
    ],
)
def test_a_date_is_its_first_moment_and_without_a_zone_ut(read, written, meant):
    (found,) = read(f"at = {written}\n{REST}").policy.breakpoints
    assert (found.at, found.kinds, found.reason) == (meant, {CalKind.FLAT}, "GCAL exposures raised")


def test_planning_has_them_in_order_of_time_whatever_their_order_in_the_file(read):
    config = read(f"at = 2016-01-01\n{REST}", f"at = 2014-01-01\n{REST.replace('flat', 'bpm')}")
    first, second = setting_of(config).policy.breakpoints
    assert first.kinds == {CalKind.STATIC_BPM, CalKind.MADE_BPM}
    assert second.at.year == 2016
    told = {name: value for name, value, _, _ in config_load.options(config)}
    assert told["breakpoint"][0] == {
        "at": "2016-01-01T00:00:00+00:00",
        "kinds": ["flat"],
        "reason": "GCAL exposures raised",
    }
    assert "planning.breakpoints" not in told


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (REST, "at is missing"),
        (f"at = 20140402\n{REST}", "must be a date, as 2014-04-02"),
        (f'at = "April"\n{REST}', "must be a date, as 2014-04-02"),
        (f"att = 2014-04-02\nat = 2014-04-02\n{REST}", "no such option; did you mean at?"),
        ('at = 2014-04-02\nkinds = ["flats"]\nreason = "x"', "no kind flats; did you mean flat?"),
        ('at = 2014-04-02\nkinds = []\nreason = "x"', "kinds is empty"),
        ('at = 2014-04-02\nkinds = [3]\nreason = "x"', "must be names"),
        ('at = 2014-04-02\nkinds = ["dark"]\nreason = " "', "reason is empty"),
        ('at = 2014-04-02\nkinds = ["dark"]', "reason is missing"),
    ],
)
def test_a_mistake_stops_the_start_with_one_line(read, table, said):
    with pytest.raises(ConfigError) as caught:
        read(table)
    (line,) = str(caught.value).splitlines()
    assert said in line
