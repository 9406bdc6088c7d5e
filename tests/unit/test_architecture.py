"""The architecture as a test: who may import what, read from the syntax trees."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from daemon import guard

ROOT = Path(__file__).parents[2]
INNER_MODULES = [
    "frame",
    "niri",
    "conditions",
    "medians",
    "params",
    "primitive",
    "recipes",
    "association",
    "levels",
    "errors",
    "verdict",
    "travel",
]
INNER_ROOMS = ["algorithms", "headers", "steps"]
NOT_INSIDE = {
    "peewee",
    "playhouse",
    "watchdog",
    "apscheduler",
    "structlog",
    "threading",
    "sqlite3",
    "time",
    "queue",
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
HEAVY = {"scipy", "numba", "sep", "PIL", "matplotlib"}


def sources(*places):
    found = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
    return found


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path, *, top_level=False):
    """Dotted names that a module imports; with top_level, only what happens when it is itself imported."""
    names = set()
    for node in _statements(tree(path)) if top_level else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def _statements(node):
    """Every statement outside functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _statements(child)


def offenders(paths, forbidden, **how):
    return {
        f"{path.relative_to(ROOT)}: {name}"
        for path in paths
        for name in imports(path, **how)
        if any(name == bad or name.startswith(bad + ".") for bad in forbidden)
    }


INNER = sources(
    *(f"pipeline/{room}" for room in INNER_ROOMS), *(f"pipeline/{name}.py" for name in INNER_MODULES)
)


def test_the_walk_sees_what_it_should():
    assert len(INNER) > 70
    assert "pipeline.errors" in imports(ROOT / "daemon/config/load.py")


def test_pipeline_never_imports_daemon():
    assert offenders(sources("pipeline"), {"daemon"}) == set()


def test_nothing_of_ours_goes_through_the_door_for_scripts():
    assert offenders(sources("daemon", "pipeline", "bench"), {"pipeline.fitsio"}) == set()


def test_inner_rings_know_no_database_thread_clock_or_log():
    assert offenders(INNER, NOT_INSIDE) == set()


def test_inner_rings_open_no_file():
    def opens(path):
        calls = (n.func for n in ast.walk(tree(path)) if isinstance(n, ast.Call))
        return any(isinstance(f, ast.Name) and f.id == "open" for f in calls)

    assert [str(path) for path in INNER if opens(path)] == []


# Here the time is told by whoever asks: a test can say what time it is, and an answer holds for one moment.
CLOCKLESS = (
    *(f"daemon/{room}" for room in ("model", "plan", "judgement", "ledger", "people")),
    *(f"daemon/arrivals/{name}.py" for name in ("settle", "read")),
)
OF_TIME = re.compile(r"time\.\w+|(datetime|date)(\.datetime|\.date)?\.(now|utcnow|today)")


def clocks_read(module):
    """Lines where a clock is read; one that is named as what an argument or a field is by default is not."""
    by_default = set()
    for node in ast.walk(module):
        if isinstance(node, ast.arguments):
            by_default |= {id(value) for value in (*node.defaults, *node.kw_defaults)}
        elif isinstance(node, ast.AnnAssign):
            by_default.add(id(node.value))
    return [
        node.lineno
        for node in ast.walk(module)
        if (isinstance(node, ast.ImportFrom) and node.module == "time")
        or (isinstance(node, ast.Attribute) and OF_TIME.fullmatch(ast.unparse(node)))
        if id(node) not in by_default
    ]


def test_the_time_is_told_to_those_who_decide_and_remember():
    seen = "def f(a=time.time): time.monotonic()\nb: Clock = time.time\nc = datetime.now(UTC) - time.time()"
    assert clocks_read(ast.parse(seen)) == [1, 3, 3]
    paths = [path for path in sources(*CLOCKLESS) if path != ROOT / "daemon/ledger/store.py"]
    assert len(paths) > 50
    assert {f"{p.relative_to(ROOT)}:{line}" for p in paths for line in clocks_read(tree(p))} == set()


def test_algorithms_know_arrays_only():
    light = {"pipeline.parallel", "pipeline.medians"}  # they know nothing of ours themselves
    known = {"pipeline", "pipeline.algorithms"} | light
    found = {
        name
        for path in sources("pipeline/algorithms")
        for name in imports(path)
        if name.partition(".")[0] in ("pipeline", "astropy")
    }
    assert {
        name for name in found if name not in known and ".".join(name.split(".")[:2]) not in known
    } == set()
    apart = sources(*(name.replace(".", "/") + ".py" for name in light))
    assert len(apart) == len(light)
    assert offenders(apart, {"pipeline", "daemon", "numpy"}) == set()


def test_only_the_stores_know_peewee():
    knowing = {
        str(path.relative_to(ROOT))
        for path in sources("pipeline", "daemon")
        if offenders([path], {"peewee", "playhouse"})
    }
    assert knowing == {"pipeline/calibrations/caldb.py", "daemon/ledger/schema.py", "daemon/ledger/store.py"}


STATEMENT = re.compile(r"\b(SELECT|INSERT|REPLACE|UPDATE|DELETE FROM|PRAGMA|VACUUM|ORDER BY)\b|\w+ = \?")


def statements(path):
    """Places of texts that are SQL, or a part of it; docstrings are none."""
    said = {ast.get_docstring(n, clean=False) for n in ast.walk(tree(path)) if isinstance(n, DOCUMENTED)}
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in said
        if STATEMENT.search(node.value)
    ]


def carried_out(path):
    """Places where a statement is carried out, by a connection or by the shorthands of a transaction."""
    calls = [n for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for call in calls
        if call.func.attr in ("execute", "execute_sql", "executemany", "executescript")
        or (call.func.attr in ("rows", "one", "run", "insert") and ast.unparse(call.func.value) == "tx")
    ]


def test_only_the_ledger_writes_statements():
    """What is wanted of it has a name there; nobody else knows a table, a row or how it is stored."""
    without = [path for path in sources("daemon") if room_of(path) != "ledger"]
    assert statements(ROOT / "daemon/ledger/night.py")
    assert carried_out(ROOT / "daemon/ledger/jobs.py")
    assert [place for path in without for place in statements(path) + carried_out(path)] == []
    assert offenders(without, {"sqlite3", "peewee", "playhouse"}) == set()


def calling(*names):
    """Modules that call a function or a method of one of these names."""
    return {
        str(path.relative_to(ROOT))
        for path in sources("daemon", "pipeline")
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call)
        if (call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)) in names
    }


def test_files_are_made_whole_in_one_place():
    """What writes products flushes what it has written, the list of decisions grows, a trial tries
    a file system, the demonstration delivers files as badly as they are delivered."""
    assert calling("fsync") == {
        "pipeline/files/disk.py",
        "pipeline/files/write.py",
        "daemon/people/requests.py",
        "daemon/upkeep/foldertrial.py",
    }
    assert calling("copyfile", "copy2", "copyfileobj") == {"pipeline/files/disk.py", "daemon/demo/night.py"}


TOUCHING = (
    "open", "stat", "lstat", "exists", "lexists", "is_file", "is_dir", "iterdir", "glob", "scandir", "mkdir",
    "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "rename", "link", "copyfile", "print",
)  # fmt: skip


def test_the_nouns_the_planner_and_the_judge_touch_nothing():
    """What they answer follows from what they are told."""
    pure = sources("daemon/model", "daemon/plan", "daemon/judgement")
    assert offenders(pure, NOT_INSIDE | {"logging", "shutil", "daemon.logs", "pipeline.files"}) == set()
    assert calling(*TOUCHING) & {str(path.relative_to(ROOT)) for path in pure} == set()
    assert "pipeline/files/disk.py" in calling(*TOUCHING)


def test_a_worker_never_sees_the_ledger():
    """Not by what it imports, nor by what that imports: it may be a process on another machine."""
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources("daemon")}
    seen, left = set(), {"daemon.work.worker"}
    while left:
        seen |= left
        left = {name for module in left for name in modules_imported(known[module], known)} - seen
    assert {"daemon.model.jobs", "daemon.logs"} < seen
    assert [name for name in seen if name.startswith("daemon.ledger")] == []


# Each room, or module beside the rooms, may import those above it, and none below; imports inside functions
# count. Of pipeline, `fitsio` is a door for scripts: nothing of ours goes through it.
FLOORS = {
    "daemon": (
        {"model"},
        {"guard", "systemd", "logs", "signals", "filesystems", "config", "markup"},
        {"instance", "owner", "limits"},
        {"plan", "engine"},
        {"judgement"},
        {"ledger"},
        {"arrivals", "work"},
        {"people", "demo"},
        {"upkeep", "loop"},
        {"app", "web"},
        {"restore", "run"},
        {"cli"},
        {"__main__"},
    ),
    "pipeline": (
        {
            "errors",
            "params",
            "niri",
            "names",
            "travel",
            "verdict",
            "parallel",
            "quickcards",
            "conditions",
            "medians",
            "levels",
        },
        {"algorithms", "headers"},
        {"association"},
        {"frame"},
        {"primitive", "files"},
        {"steps", "logutils"},
        {"recipes", "calibrations", "toolkit", "simulate"},
        {"select", "produce"},
        {"cal_service"},
        {"reduction"},
        {"reduce", "fitsio"},
    ),
}


def room_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[1]


def rooms_imported(path):
    """Rooms of its own package that a module imports; `from pipeline import x` counts as x."""
    package = path.relative_to(ROOT).parts[0]
    names = {name for name in imports(path) if name.startswith(package + ".")}
    return {name.split(".")[1] for name in names} - {room_of(path)}


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_only_what_is_above_them(package):
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    paths = [path for path in sources(package) if path != ROOT / package / "__init__.py"]
    assert {room_of(path) for path in paths} == set(floor)
    wrong = {
        f"{path.relative_to(ROOT)}: {room}"
        for path in paths
        for room in rooms_imported(path)
        if floor[room] >= floor[room_of(path)]
    }
    assert wrong == set()


def test_every_room_says_what_it_is_for():
    rooms = [path.parent for path in sources(*FLOORS) if path.stem == "__init__"]
    assert [room.name for room in rooms if not ast.get_docstring(tree(room / "__init__.py"))] == []


def modules_imported(path, known):
    return {
        part
        for name in imports(path)
        for part in (name, name.rpartition(".")[0])
        if part in known and known[part] != path
    }


@pytest.mark.parametrize("package", FLOORS)
def test_no_modules_stand_in_a_circle(package):
    known = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sources(package)
        if path.stem != "__init__"
    }
    left = {name: modules_imported(path, known) for name, path in known.items()}
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert left == {}


def test_compiled_code_is_imported_inside_functions():
    outside = [path for path in INNER if "algorithms" not in path.parts] + sources("daemon")
    assert offenders(outside, HEAVY | {"pipeline.algorithms"}, top_level=True) == set()


def test_the_daemon_does_not_load_compiled_code():
    """60 MB without, 159 MB with it: pixels belong to the workers, and astropy's headers with them."""
    program = (
        "import sys, daemon.app, daemon.cli, daemon.engine.local, daemon.loop, daemon.arrivals.intake\n"
        "import daemon.upkeep.rebuild, daemon.people.requests, daemon.upkeep.schedule, pipeline.recipes\n"
        f"heavy = {HEAVY | {'astropy'}!r}\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in heavy or m.startswith('pipeline.algorithms')]\n"
        "print(' '.join(bad))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_page_reduces_nothing_and_loads_nothing_that_does():
    """Its process reads the ledger, the notes of the daemon and pictures that are made."""
    program = (
        "import sys, daemon.web.server\n"
        f"heavy = {HEAVY | {'astropy', 'watchdog', 'distributed'}!r}\n"
        "ours = ('pipeline.algorithms', 'daemon.work.worker', 'daemon.engine')\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in heavy or m.startswith(ours)]\n"
        "print(' '.join(bad))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    web = sources("daemon/web")
    assert len(web) > 10
    assert offenders(web, {"pipeline.algorithms", "pipeline.steps", "daemon.work", "daemon.engine"}) == set()
    assert calling("write", "insert", "run_recipe") & {str(path.relative_to(ROOT)) for path in web} == set()


def test_the_workers_start_before_the_daemon_has_loaded_its_parts():
    """They need a second or two: what comes before that, every start waits for."""
    program = (
        "import sys, daemon.app, daemon.config.load\n"
        "daemon.work.workers.engine_of(daemon.config.load.load())\n"
        "later = {'numpy', 'peewee', 'watchdog', 'daemon.loop', 'pipeline.recipes'}\n"
        "print(' '.join(later & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_transaction_says_immediate():
    """A deferred one fails with "database is locked" when a read in it turns into a write."""
    bare = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sources("daemon", "pipeline")
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("atomic", "transaction")
        and not call.args
    ]
    assert bare == []


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell():
    assert offenders(sources("daemon", "pipeline"), {"pickle", "marshal", "shelve", "dill"}) == set()
    for path in sources("daemon", "pipeline"):
        for call in (n for n in ast.walk(tree(path)) if isinstance(n, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            assert name not in ("eval", "exec"), f"{path}:{call.lineno}"
            assert "shell" not in {k.arg for k in call.keywords}, f"{path}:{call.lineno}"


def test_no_module_takes_a_name_that_belongs_to_others():
    for path in sources("daemon", "pipeline"):
        assert path.name not in ("daemon.py", "pidfile.py")
    assert not [p for p in (ROOT / "tests").rglob("*") if p.is_dir() and p.name in ("daemon", "pipeline")]
    assert not sources("config", "systemd")


def test_this_environment_is_ours_alone():
    assert guard.intruders() == {}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("top_level.txt", "docs\ndaemon\n"),
        ("RECORD", "docs/x.py,,\ndaemon/__init__.py,sha256=x,1\n"),
        ("RECORD", "daemon.py,sha256=x,1\n"),
    ],
)
def test_an_intruder_is_named(monkeypatch, tmp_path, file, text):
    other = tmp_path / "python_daemon-3.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: python-daemon\nVersion: 3.0\n")
    (other / file).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert guard.intruders() == {"daemon": ["python-daemon"]}
    assert "'python-daemon' also provides the package 'daemon'" in guard.complaint()


def test_a_distribution_with_a_like_name_is_none(monkeypatch, tmp_path):
    other = tmp_path / "daemonic-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: daemonic\nVersion: 1.0\n")
    (other / "RECORD").write_text("daemonic/__init__.py,,\nlib/daemon/x.py,,\nthe.pipeline.py,,\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert guard.intruders() == {}


@pytest.mark.parametrize("package", FLOORS)
def test_packages_are_listed_for_the_wheel(package):
    folders = {path.parent for path in sources(package)}
    assert all((folder / "__init__.py").exists() for folder in folders), (
        "a folder without __init__ is left out"
    )


# -- sizes -----------------------------------------------------------------------------------------------

LONGEST_MODULE, LONGEST_BODY = 350, 60
# One class for each table of the database; one line for each descriptor.
AS_A_TABLE = {"daemon/ledger/schema.py:models", "pipeline/headers/descriptors.py:describe"}


def bodies(path):
    """(name, lines of its body without the docstring) of every function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            yield node.name, node.end_lineno - first.lineno + 1


def test_a_long_module_says_why():
    """A docstring with the word "long" in it has been asked."""
    silent = {
        str(path.relative_to(ROOT)): lines
        for path in sources("daemon", "pipeline")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_MODULE
        and " long " not in (ast.get_docstring(tree(path)) or "")
    }
    assert silent == {}


def test_functions_are_short():
    long = {
        name: lines
        for path in sources("daemon", "pipeline")
        for function, lines in bodies(path)
        if lines > LONGEST_BODY and (name := f"{path.relative_to(ROOT)}:{function}") not in AS_A_TABLE
    }
    assert long == {}
