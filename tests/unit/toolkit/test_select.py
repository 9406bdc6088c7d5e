"""dataselect: the grammar of expressions, the equality of Gemini's tool, and which of its quirks are gone."""

import datetime as dt
import re

import numpy as np
import pytest
from astropy.io import fits

from pipeline import select
from pipeline.errors import NiridError
from pipeline.toolkit.dataset import CannotOpen
from pipeline.toolkit.expression import expr_parser
from pipeline.toolkit.methods import Described
from pipeline.toolkit.tokens import ExpressionError


class Header(Described):
    """A frame that is nothing but cards."""

    def __init__(self, shape=(1024, 1024), **cards):
        self._cards, self._shape, self.filename = cards, shape, "N20160102S0270.fits"


SCIENCE = Header(
    INSTRUME="NIRI", OBSTYPE="OBJECT", OBSCLASS="science", OBJECT="FS 17", EXPTIME=20.002, COADDS=1,
    FILTER1="Kprime_G0206", FILTER2="open", FILTER3="Pupil38_G5207", CAMERA="f6", AIRMASS=1.5,
    **{"DATE-OBS": "2016-01-02"}, UT="07:16:17.1", LNRS=1, NDAVGS=16, A_VDDUC=-3.4, A_VDET=-2.8,
)  # fmt: skip
BARE = Header(INSTRUME="NIRI", OBSTYPE="OBJECT")


def holds(expression, ad=SCIENCE, strict=False):
    return expr_parser(expression, strict)(ad)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("exposure_time==20", True),  # 20.002 s, as real headers have it
        ("exposure_time==20.2", True),  # 1 % of the larger
        ("exposure_time==19.8", False),
        ("exposure_time==20.3", False),
        ("exposure_time!=20", True),  # exact, as Gemini's
        ("not exposure_time==20", False),
        ("exposure_time>20", True),
        ("exposure_time>20.002", False),
        ("exposure_time>=20.002", True),
        ("exposure_time<=20.002 and exposure_time<20.003", True),
        ('filter_name=="K(prime)"', True),
        ('filter_name=="Kprime_G0206"', False),
        ('filter_name!="K(prime)"', False),
        ('object=="FS 17"', True),
        ('object=="fs 17"', False),
        ("object!='FS 17'", False),
        ("airmass==1.5", True),
        ("coadds==1", True),
        ("is_ao", False),
        ("not is_ao", True),
        ("is_ao==False", True),
        ("gain==12.3", True),  # per extension, of which there is one
        ('data_section=="[1:1024,1:1024]"', True),
        ("effective_wavelength==2.12e-6", True),
        ("central_wavelength==None", True),
        ("wavefront_sensor==None", True),
        ("observation_class!=None", True),
        ("True", True),
        ('"RAW" in tags', True),
        ('"DARK" in tags', False),
        ('filename=="N20160102S0270.fits"', True),
    ],
)
def test_values(expression, expected):
    assert holds(expression) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("exposure_time==20", False),
        ("exposure_time==20.002", True),
        ("exposure_time in (20, 1)", False),
        ('filter_name=="K(prime)"', False),
        ('filter_name=="Kprime_G0206"', True),
    ],
)
def test_strict_is_exact(expression, expected):
    assert holds(expression, strict=True) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "exposure_time == 20",
        "  exposure_time  ==  20  ",
        "20==exposure_time",
        "(exposure_time==20)",
        "((exposure_time)==(20))",
        "(exposure_time==20 or exposure_time==1)",
        "(exposure_time==1 or exposure_time==20)",
        "exposure_time==1 or (exposure_time==20 and coadds==1)",
        "not (exposure_time==1 or coadds==2)",
        "not not exposure_time==20",
        "exposure_time in (1, 20)",
        "exposure_time in [20]",
        "exposure_time not in (1, 5)",
        "1 < exposure_time < 30",
        "exposure_time()==20",
        'object in ("FS 27", "FS 17",)',
        '"17" in object',
        '"18" not in object',
        "exposure_time==2.0e1 and not(coadds==2)",
    ],
)
def test_blanks_and_parentheses_anywhere(expression):
    assert holds(expression)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("coadds==2 and coadds==2 or exposure_time==20", True),  # `and` binds closer than `or`
        ("exposure_time==20 or coadds==2 and coadds==2", True),
        ("(exposure_time==20 or coadds==2) and coadds==2", False),
        ("not coadds==2 and exposure_time==1", False),  # `not` binds closer than `and`
    ],
)
def test_precedence(expression, expected):
    assert holds(expression) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('ut_date=="2016-01-02"', True),
        ("ut_date==2016-01-02", True),
        ("ut_date==2016-1-2", True),
        ("ut_date>2016-01-02", False),
        ('ut_time>"07:16:17"', True),
        ("ut_time==07:16:17.1", True),
        ("07:00:00 < ut_time < 07:30:00", True),
        ('ut_datetime>"2016-01-02 07:16:17" and ut_datetime<"2016-01-02T07:16:18"', True),
        ("ut_datetime>2016-01-02 07:16:17 and ut_datetime<2016-01-02 07:16:18", True),
        ("ut_datetime==2016-01-02T07:16:17.1", True),
        ("ut_datetime>2016-01-03", False),
        ("ut_datetime>2016-01-02", True),
        ("ut_date in (2016-01-01, 2016-01-02)", True),
    ],
)
def test_dates_and_times(expression, expected):
    assert holds(expression) is expected


def test_a_frame_that_does_not_say_is_in_no_order_and_equal_to_none():
    assert not holds("airmass<2", BARE)
    assert not holds("airmass>2", BARE)
    assert holds("airmass==None", BARE)
    assert holds("exposure_time==None", BARE)
    assert not holds("exposure_time==20", BARE)
    assert not holds('"FS" in object', BARE)
    assert not holds("ut_datetime>2016-01-02", BARE)


@pytest.mark.parametrize(
    ("expression", "column", "problem"),
    [
        ("exposure_tme==20", 1, "no descriptor exposure_tme; did you mean exposure_time?"),
        ("object==FS17", 9, "no descriptor FS17; text stands in quotes"),
        ("exposure_time=20", 14, "'=' compares nothing; did you mean ==?"),
        ("exposure_time=!20", 14, "'=!' compares nothing"),
        ('object=="FS 17', 9, "the quote is not closed"),
        ("exposure_time==20 coadds==1", 19, "'coadds' is not expected here"),
        ("(exposure_time==20", 19, "')' is expected here, for the '(' in column 1"),
        ("exposure_time==20)", 18, "')' is not expected here"),
        ("exposure_time==", 16, "a descriptor or a value is expected here, not the end"),
        ("exposure_time== and coadds==1", 17, "a descriptor or a value is expected here, not 'and'"),
        ("exposure_time", 1, "exposure_time is a number, not a condition"),
        ("coadds==1 and object", 15, "object is text, not a condition"),
        ('exposure_time<"long"', 15, "exposure_time is a number and cannot be compared with text"),
        ("object<20", 8, "object is text and cannot be compared with a number"),
        ("ut_date==20160102", 10, "ut_date is a date and cannot be compared with a number"),
        ('ut_date=="2016-13-02"', 10, "'2016-13-02' is no date; wanted YYYY-MM-DD"),
        ('ut_time=="7 o\'clock"', 10, "is no time; wanted HH:MM:SS"),
        ("ut_date==2016-01-02 07:00", 10, "more than a date"),
        ("coadds in 3", 11, "'in' wants a list or text at its right"),
        ("20s==exposure_time", 3, "'s' is not expected here"),
        ("exposure_time==20 & coadds==1", 19, "'&' is not understood"),
        ("__import__('os')", 1, "no descriptor __import__"),
        ("exposure_time.__class__==1", 14, "'.' is not understood"),
        ("filter_name(pretty=True)=='J'", 13, "a descriptor takes no options"),
    ],
)
def test_a_bad_expression_points_at_the_column(expression, column, problem):
    with pytest.raises(ExpressionError, match=re.escape(problem)) as caught:
        expr_parser(expression)
    assert caught.value.column == column
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NiridError)


def test_every_term_of_the_published_table_is_parsed():
    for name in ("local_time==21:16:16", "disperser=='MIRROR'", "detector_name==None", "ra==148.9"):
        assert callable(expr_parser(name))


# --- files ------------------------------------------------------------------------------------------
def write(path, cards, size=4):
    phu = fits.PrimaryHDU()
    phu.header.update({"INSTRUME": "NIRI", "DATE-OBS": "2016-01-02", "UT": "07:00:00", **cards})
    fits.HDUList([phu, fits.ImageHDU(np.zeros((size, size), np.float32))]).writeto(path)
    return str(path)


@pytest.fixture
def night(tmp_path):
    return [
        write(tmp_path / "N20160102S0423.fits", {"OBSTYPE": "DARK", "EXPTIME": 20.002, "FILTER3": "blank"}),
        write(tmp_path / "N20160103S0463.fits", {"OBSTYPE": "DARK", "EXPTIME": 1.001}),
        write(
            tmp_path / "N20160102S0373.fits",
            {"OBSTYPE": "FLAT", "EXPTIME": 42.001, "GCALLAMP": "IRhigh", "GCALSHUT": "OPEN"},
        ),
        write(
            tmp_path / "N20160102S0270.fits", {"OBSTYPE": "OBJECT", "EXPTIME": 20.002, "OBJECT": "SN2014J"}
        ),
    ]


def test_select_data_as_the_tutorial_does(night):
    dark20, dark1, flat, science = night
    assert select.select_data(night, ["DARK"]) == [dark20, dark1]
    assert select.select_data(night, ["DARK"], [], expr_parser("exposure_time==20")) == [dark20]
    assert select.select_data(night, ["FLAT"]) == [flat]
    assert select.select_data(night, ["IMAGE"], ["FLAT"], expr_parser('object!="FS 17"')) == [science]
    assert select.select_data(night, [], [], expr_parser('object=="FS 17"')) == []


def test_select_data_takes_text_for_tags_and_expression_and_keeps_the_order(night):
    assert select.select_data(night[::-1], "dark, raw", "", "exposure_time < 30") == [night[1], night[0]]
    assert select.select_data(night) == night


def test_a_file_that_is_none_is_named(night, tmp_path):
    broken = tmp_path / "note.fits"
    broken.write_text("not a FITS file")
    with pytest.raises(CannotOpen, match=r"note\.fits"):
        select.select_data([*night, str(broken)])
    with pytest.raises(CannotOpen, match=r"absent\.fits: no such file"):
        select.select_data([str(tmp_path / "absent.fits")])


def test_unknown_tags_are_told_with_the_nearest():
    assert select.unknown_tags("DARK,FLTA") == ["FLTA is no tag of a NIRI frame; did you mean FLAT?"]


def test_showd(night):
    rows = select.showd(night[:1], "exposure_time, filter_name,ut_datetime")
    assert rows == [
        {
            "filename": night[0],
            "exposure_time": 20.002,
            "filter_name": "blank",
            "ut_datetime": dt.datetime(2016, 1, 2, 7),
        }
    ]
    with pytest.raises(NiridError, match="did you mean exposure_time"):
        select.showd(night, "exposure_tim")


def test_typewalk_goes_into_folders_and_says_what_it_cannot_open(night, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    below = write(tmp_path / "sub" / "a.fits", {"OBSTYPE": "DARK"})
    write(tmp_path / ".hidden" / "b.fits", {"OBSTYPE": "DARK"})
    (tmp_path / "torn.fits").write_bytes(b"SIMPLE  =                    T")
    rows = {row["filename"]: row for row in select.typewalk(tmp_path)}
    assert set(rows) == {*night, below, str(tmp_path / "torn.fits")}
    assert rows[below]["tags"] == sorted(rows[below]["tags"])
    assert "torn.fits" in rows[str(tmp_path / "torn.fits")]["error"]
    assert [row["filename"] for row in select.typewalk(tmp_path, "FLAT")] == [night[2]]
    assert len(select.typewalk(tmp_path, "DARK", recursive=False)) == 2
    with pytest.raises(CannotOpen, match="no such folder"):
        select.typewalk(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('filter_name=="Kprme"', "no NIRI frame has filter_name 'Kprme'; did you mean Kprime?"),
        ('camera in ("f6", "f15")', "no NIRI frame has camera 'f15'; did you mean f14?"),
        ('read_mode != "Low"', "no NIRI frame has read_mode 'Low'"),
        ('well_depth_setting=="shallow"', "did you mean Shallow?"),
        ('camera=="f7"', "no NIRI frame has camera 'f7'; there are f13.9, f14, f32, f6"),
        ('qa_state=="Pas"', "no NIRI frame has qa_state 'Pas'; did you mean Pass?"),
        ('qa_state!="Fail"', ""),
        ('"DRAK" in tags', "no NIRI frame has tags 'DRAK'; did you mean DARK?"),
        ('observation_type=="dark"', "did you mean DARK?"),
        ('filter_name=="K(prime)" or filter_name=="Kprime_G0206" or filter_name=="H"', ""),
        ('"K" in filter_name and object=="anything" and "DARK" in tags', ""),
    ],
)
def test_a_word_that_no_frame_can_have_is_told(text, said):
    warnings = " ".join(expr_parser(text).warnings)
    assert said in warnings
    assert bool(warnings) == bool(said)


@pytest.mark.parametrize(
    "text",
    ["(" * 5000 + "coadds==1" + ")" * 5000, "[" * 300 + "1", "exposure_time==1e999", "airmass<-1e400"],
)
def test_what_is_too_deep_or_too_large_is_one_line(text):
    with pytest.raises(ExpressionError, match=r"deeper|too large") as caught:
        expr_parser(text)
    assert len(str(caught.value)) < 250


def test_many_negations():
    assert expr_parser("not " * 5000 + "True")(None) is True
    assert expr_parser("not " * 5001 + "True")(None) is False
