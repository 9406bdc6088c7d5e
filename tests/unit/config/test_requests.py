"""[[request]]: what a programme asks for, read and checked before the night begins."""

import pytest

from daemon.config.load import load
from pipeline.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "nirid.toml"
        path.write_text(text)
        return path

    return write


def problems(path):
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).splitlines()


def test_requests_of_programmes_are_read(file):
    loaded = load(file('[[request]]\nprogram = "GN-2015B-Q-31"\niq = 70\ncloud_mag = 0.3\n'))
    (request,) = loaded.request
    assert (request.program, request.iq, request.cloud_mag, request.bg) == ("GN-2015B-Q-31", 70, 0.3, None)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("iq = 70", "program is missing"),
        ('program = ""\niq = 70', "program is empty"),
        ('program = "A"\niq = 71', "iq = 71: no such bin; did you mean 70?"),
        ('program = "A"\ncc = 101', "must be"),
        ('program = "A"\niqq = 70', "no such option; did you mean iq?"),
        ('program = "A"\niq = "good"', "'good'"),
        ('program = "A"\niq = 70\niq_arcsec = 0.6', "iq and iq_arcsec are one condition"),
        ('program = "A"\ncloud_mag = 0', "must be"),
    ],
)
def test_a_mistake_in_a_request_is_named_with_what_was_meant(file, lines, said):
    (line,) = problems(file(f"[[request]]\n{lines}\n"))
    assert said in line
