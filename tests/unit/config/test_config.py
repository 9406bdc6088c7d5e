"""The configuration: defaults, the shipped files, every mistake at once, and where a value came from."""

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config import check
from daemon.config import load as config_load
from daemon.config.load import load
from daemon.config.options import Config
from daemon.config.service import CACHE, FILE, FOLDERS, STATE
from pipeline.errors import ConfigError
from pipeline.headers.descriptors import Descriptors

SHIPPED = Path(__file__).parents[3] / "config"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "nirid.toml"
        path.write_text(text)
        return path

    return write


def problems(path, **given):
    with pytest.raises(ConfigError) as caught:
        load(path, given)
    return str(caught.value).splitlines()


def test_the_annotated_file_says_the_defaults_and_all_of_them():
    loaded = load(SHIPPED / "nirid.toml")
    assert replace(loaded, origins={}, path="") == Config()
    missing = [name for name, _, origin, _ in config_load.options(loaded) if origin != "file"]
    assert missing == ["override", "request", "goal", "breakpoint"]  # there are none by default


def test_the_annotated_file_says_what_the_code_says_of_each_option():
    text = " ".join((SHIPPED / "nirid.toml").read_text().replace('"', "").split())
    for name, _, _, doc in config_load.options(Config()):
        if doc:
            assert f"{name.rpartition('.')[2]} = " in text
    assert all(doc for name, _, _, doc in config_load.options(Config()) if "." in name)


def test_the_developers_file_loads_and_keeps_the_shipped_rules():
    loaded = load(SHIPPED / "nirid.dev.toml")
    assert {rule.title for rule in loaded.trigger} == {rule.title for rule in Config().trigger}
    assert all(rule.quiet_seconds == 3 and rule.ingredients for rule in loaded.trigger)


def test_without_a_file_everything_is_default():
    loaded = load()
    assert loaded == Config()
    assert {origin for _, _, origin, _ in config_load.options(loaded)} == {"default"}


def test_the_shipped_rules_name_what_exists():
    check.check_triggers(Config())


def test_origins(file):
    loaded = load(file("[engine]\nworkers = 3\n[watch]\nfolders = ['a']\n"), {"watch.folders": ["b"]})
    origins = {name: (value, origin) for name, value, origin, _ in config_load.options(loaded)}
    assert origins["engine.workers"] == (3, "file")
    assert origins["watch.folders"] == (["b"], "command line")
    assert origins["watch.observer"] == ("auto", "default")


def test_every_mistake_at_once_with_its_line_and_what_was_meant(file):
    path = file(
        "[watch]\n"
        "setle_seconds = 2.0\n"
        'observer = "notify"\n'
        "\n"
        "[engine]\n"
        "workers = 0\n"
        'memory_mb = "much"\n'
        "[enigne]\n"
        "x = 1\n"
    )
    assert problems(path) == [
        f"{path}:2: watch.setle_seconds: no such option; did you mean settle_seconds?",
        f"{path}:3: watch.observer = 'notify': must be one of auto, native, polling",
        f"{path}:6: engine.workers = 0: must be at least 1",
        f"{path}:7: engine.memory_mb = 'much': must be a whole number",
        f"{path}:8: enigne: no such option; did you mean engine?",
    ]


def test_mistakes_inside_a_trigger(file):
    path = file(
        "[[trigger]]\n"
        'recipe = "makeProcessedDark"\n'
        "quiet_secs = 3\n"
        "[[trigger]]\n"
        'name = "science"\n'
        "ingredients = [{ tags = ['RAW'], at_leest = 3 }]\n"
    )
    assert problems(path) == [
        f"{path}:3: trigger[1].quiet_secs: no such option; did you mean quiet_seconds?",
        f"{path}: trigger[2].ingredients[1].at_leest: no such option; did you mean at_least?",
    ]


def test_names_in_a_trigger_that_do_not_exist(file):
    path = file(
        "[[trigger]]\n"
        'name = "mine"\n'
        'recipe = "reduse"\n'
        'ingredients = [{ tags = ["NIRI", "DRAK"], limits = { exposure = [0, 2] } }]\n'
        'group_by = ["filtername"]\n'
        'join = { rule = "makeProcesedDark" }\n'
    )
    assert problems(path) == [
        f"{path}: trigger mine: no recipe reduse; did you mean reduce?",
        f"{path}: trigger mine: no descriptor filtername; did you mean filter_name?",
        f"{path}: trigger mine: no descriptor exposure; did you mean exposure_time?",
        f"{path}: trigger mine: no tag DRAK; did you mean DARK?",
        f"{path}: trigger mine: no trigger makeProcesedDark; did you mean makeProcessedDark?",
    ]


def test_a_trigger_table_changes_what_it_says_and_keeps_the_rest(file):
    loaded = load(file('[[trigger]]\nname = "science"\nquiet_seconds = 5\n'))
    rules = {rule.title: rule for rule in loaded.trigger}
    shipped = {rule.title: rule for rule in Config().trigger}
    assert rules["science"] == replace(shipped["science"], quiet_seconds=5.0)
    assert rules == shipped | {"science": rules["science"]}


def test_broken_toml_says_the_line(file):
    (line,) = problems(file("[watch]\nfolders = drop\n"))
    assert "line 2" in line


def test_a_file_that_is_not_there(tmp_path):
    (line,) = problems(tmp_path / "none.toml")
    assert line == f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"


def test_a_bad_value_on_the_command_line():
    assert problems(None, **{"engine.workers": 0}) == ["command line: engine.workers = 0: must be at least 1"]


@pytest.mark.parametrize(
    ("drop", "products", "state"),
    [("d", "d/p", "s"), ("p/d", "p", "s"), ("d", "p", "d/s"), ("d", "p", "p"), ("d", "link", "s")],
)
def test_folders_that_contain_one_another(tmp_path, drop, products, state):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    given = {"watch.folders": [str(tmp_path / drop)]}
    given |= {"products.folder": str(tmp_path / products), "state.folder": str(tmp_path / state)}
    (line,) = problems(None, **given)
    assert "contain one another" in line


def test_neighbours_with_names_that_begin_alike_are_apart(tmp_path):
    given = {"watch.folders": [str(tmp_path / "d"), str(tmp_path / "dd")]}
    given |= {"products.folder": str(tmp_path / "d-products"), "state.folder": str(tmp_path / "s")}
    assert load(None, given).product_folder == tmp_path / "d-products"


def test_a_misspelt_parameter_stops_the_start(file):
    path = file(
        "[[override]]\n"
        'parameters = { "stackFrames:hsgma" = 2 }\n'
        "[[override]]\n"
        'recipe = "reduce"\n'
        'match = { objekt = "M31" }\n'
        'parameters = { "stackFrames:operation" = "avg" }\n'
        "[[override]]\n"
        'recipe = "reduze"\n'
    )
    lines = problems(path)
    assert "stackFrames:hsgma: no such parameter; did you mean hsigma?" in lines[0]
    assert "no descriptor objekt; did you mean object?" in lines[1]
    assert "stackFrames:operation='avg': must be one of" in lines[2]
    assert "no recipe reduze; did you mean reduce?" in lines[3]


def test_overrides_reach_what_they_match(file):
    loaded = load(
        file(
            "[[override]]\n"
            'parameters = { "stackFrames:operation" = "median" }\n'
            "[[override]]\n"
            'recipe = "reduce"\n'
            'match = { object = "M31", exposure_time = 20 }\n'
            'parameters = { "stackFrames:operation" = "mean", "skyCorrect:scale_sky" = false }\n'
        )
    )
    m31 = Descriptors(object="M31", exposure_time=20.002).to_json()
    assert loaded.parameters("reduce", m31) == {
        "stackFrames:operation": "mean",
        "skyCorrect:scale_sky": False,
    }
    assert loaded.parameters("reduce", {**m31, "object": "M33"}) == {"stackFrames:operation": "median"}
    assert loaded.parameters("reduce", {**m31, "exposure_time": 30.0}) == {"stackFrames:operation": "median"}
    assert loaded.parameters("makeProcessedDark", m31) == {}  # has no such step


def test_which_file(monkeypatch, tmp_path):
    monkeypatch.delenv("NIRID_CONFIG", raising=False)
    monkeypatch.delenv("CONFIGURATION_DIRECTORY", raising=False)
    assert config_load.find_file() is None
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    assert config_load.find_file() is None
    (tmp_path / "nirid.toml").touch()
    assert config_load.find_file() == tmp_path / "nirid.toml"
    monkeypatch.setenv("NIRID_CONFIG", "/a/b.toml")
    assert config_load.find_file() == Path("/a/b.toml")
    assert config_load.find_file("c.toml") == Path("c.toml")


def test_the_service_of_this_machine_is_found(monkeypatch, tmp_path):
    for name in ("NIRID_CONFIG", "CONFIGURATION_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIRID_ROOT", str(tmp_path))
    assert config_load.find_file() is None
    file = tmp_path / "etc/nirid/nirid.toml"
    file.parent.mkdir(parents=True)
    file.write_bytes((SHIPPED / "nirid.toml").read_bytes())
    assert config_load.find_file() == file
    assert config_load.find_file(of_service=False) is None
    loaded = load(file)
    assert loaded.drop_folders == (tmp_path / "srv/nirid/drop",)
    assert loaded.product_folder == tmp_path / "srv/nirid/products"
    assert loaded.state_folder == tmp_path / "var/lib/nirid"
    assert loaded.cache_folder == tmp_path / "var/cache/nirid/frames"
    assert loaded.origins["state.folder"] == "service"
    given = {"watch.folders": ["/a"], "products.folder": "/b", "state.folder": "/c"}
    loaded = load(file, given)
    folders = (*loaded.drop_folders, loaded.product_folder, loaded.state_folder, loaded.cache_folder)
    assert folders == (Path("/a"), Path("/b"), Path("/c"), Path("/c/cache"))
    file.write_text('[state]\nfolder = "/elsewhere"\n[products]\nfolder = "/p"\n')
    loaded = load(file)
    assert (loaded.state_folder, loaded.product_folder) == (Path("/elsewhere"), Path("/p"))
    monkeypatch.setenv("STATE_DIRECTORY", "/of/the/unit")  # its manager has set everything
    monkeypatch.chdir(tmp_path)
    file.write_text("")
    assert load(file).drop_folders == (tmp_path / "drop",)
    assert load(file).state_folder == Path("/of/the/unit")


def test_commands_and_unit_mean_the_same_folders():
    unit = (SHIPPED.parent / "systemd/nirid.service").read_text().splitlines()
    said = dict(line.partition("=")[::2] for line in unit)
    assert said["WorkingDirectory"] == f"/{FOLDERS}"
    assert f"/var/lib/{said['StateDirectory']}" == f"/{STATE}"
    assert f"/var/cache/{said['CacheDirectory']}" == f"/{CACHE}"
    assert said["Environment"] == "NUMBA_CACHE_DIR=%C/nirid/numba"  # as Settings.load has it
    assert f"/etc/{said['ConfigurationDirectory']}/nirid.toml" == f"/{FILE}"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('program = "GN-*"\niqq = 70', "no such option; did you mean iq?"),
        ('program = "GN-*"\niq = 700', "iq = 700"),
        ('program = "GN-*"\niq_arcsec = -1.0', "iq_arcsec = -1.0"),
        ('program = "GN-*"\ncc = "dry"', "cc = 'dry'"),
    ],
)
def test_a_mistake_in_a_request_stops_the_start(tmp_path, table, said):
    path = tmp_path / "nirid.toml"
    path.write_text(f"[[request]]\n{table}\n")
    with pytest.raises(ConfigError) as wrong:
        load(path)
    assert said in str(wrong.value)
