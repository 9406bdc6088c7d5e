"""How observers write the names of standards, and the names that only look like one."""

import pytest

from pipeline.headers import standards


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("FS 17", "FS 17"),
        ("FS17", "FS 17"),
        ("fs_017", "FS 17"),
        ("FS-103", "FS 103"),
        ("FS139", "FS 139"),
        ("fs19_H", "FS 19"),
        ("Rubin 149 (ukirt fs14)", "FS 14"),
        ("RU_149", "FS 14"),
        ("P330E", "P330-E"),
        ("P525-E", "FS 102"),
        ("F22", "FS 6"),  # Feige 22, not FS 22
        ("fs2-03", "FS 107"),  # not FS 23
        ("fs2-29", "FS 101"),  # not FS 2
        ("Ser-EC68", "FS 143"),
        ("HD 1160", "HD 1160"),
    ],
)
def test_a_written_name_finds_its_star(written: str, meant: str) -> None:
    star = standards.find(written)
    assert star is not None
    assert star.name == meant


@pytest.mark.parametrize(
    "written",
    ["", "FS", "FS 22", "FS 40", "fs2-99", "FS 17-3", "NGC 17", "9104", "HIP 77660", "M82", "ABFS17"],
)
def test_other_names_find_none(written: str) -> None:
    assert standards.find(written) is None


def test_magnitudes_are_the_published_ones() -> None:
    star = standards.find("FS 17")
    assert star is not None
    assert (star.magnitudes["J"], star.magnitudes["K"]) == (12.668, 12.290)
    assert (star.errors["H"], star.system, star.flag) == (0.010, "MKO", "")
    assert len(standards.table()) == len({s.name for s in standards.table()}) == 268
