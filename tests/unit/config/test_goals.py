"""[[goal]]: what is enough, read and checked before the night begins."""

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


def test_goals_are_read(file):
    loaded = load(
        file(
            '[[goal]]\nprogram = "GN-2015B-Q-31"\ndepth = 21.5\n'
            '[[goal]]\nprogram = "GN-*"\ntarget = "SN 2014J"\nfilter = "K(prime)"\nsnr = 20\nmagnitude = 19\n'
        )
    )
    first, second = loaded.goal
    assert (first.program, first.depth, first.snr, first.filter) == ("GN-2015B-Q-31", 21.5, None, "")
    assert (second.target, second.filter, second.snr, second.magnitude) == ("SN 2014J", "K(prime)", 20, 19)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("depth = 21", "program is missing"),
        ('program = " "\ndepth = 21', "program is empty"),
        ('program = "A"', "depth or snr: one of them is needed"),
        ('program = "A"\ndepth = 21\nsnr = 10', "depth or snr: say one of them"),
        ('program = "A"\ndepth = 21\nmagnitude = 19', "magnitude belongs to snr"),
        ('program = "A"\nfilter = "Kprime"\ndepth = 21', "no filter Kprime; did you mean K(prime)?"),
        ('program = "A"\ndepht = 21', "no such option; did you mean depth?"),
        ('program = "A"\nsnr = 0', "must be"),
        ('program = "A"\ndepth = 210', "must be"),
        ('program = "A"\ndepth = "deep"', "'deep'"),
    ],
)
def test_a_mistake_in_a_goal_is_named_with_what_was_meant(file, lines, said):
    with pytest.raises(ConfigError) as caught:
        load(file(f"[[goal]]\n{lines}\n"))
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert "goal" in line
