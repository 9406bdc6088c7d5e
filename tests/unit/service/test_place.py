"""Where the daemon lives: umasks, limits, locks, file systems, folders of other people."""

import errno
import os
import resource
import shutil
import signal
import stat
from pathlib import Path

import pytest

from daemon import instance, limits
from daemon.arrivals.sweep import Index
from daemon.config import load
from daemon.config.options import Config
from daemon.engine import child, deaths
from daemon.engine.deaths import Memory
from daemon.instance import CannotLock
from daemon.upkeep import audit
from daemon.work import diskguard, moving
from daemon.work.diskguard import DiskGuard
from pipeline.errors import NiridError
from pipeline.files import disk


def settings(tmp_path):
    return load.load(None, {"state.folder": str(tmp_path / "state")})


# -- modes, locks, folders -----------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_modes_are_ours_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with instance.only_one(settings(tmp_path)):
            disk.make_folder(tmp_path / "products" / "20160102")
            (tmp_path / "products" / "a.fits").write_bytes(b"")
        assert os.umask(umask) == umask, "not given back"
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes["state"] == 0o750
    assert (modes["20160102"], modes["a.fits"], modes["daemon.json"]) == (0o755, 0o644, 0o644)


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOLCK, 1), (errno.EOPNOTSUPP, 78), (errno.ENOSYS, 78), (errno.EINVAL, 78)]
)
@pytest.mark.parametrize("call", ["flock", "lockf"])  # ours, the database's
def test_a_file_system_without_locks(tmp_path, monkeypatch, call, number, code):
    def none(fd, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"fcntl.{call}", none)
    with pytest.raises(CannotLock) as caught, instance.only_one(settings(tmp_path)):
        pass
    assert caught.value.exit_code == code
    for word in (str(tmp_path / "state"), os.strerror(number), "local disk"):
        assert word in str(caught.value)


def test_the_first_of_several_state_folders_is_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/one:{tmp_path}/two")
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path}/c1:{tmp_path}/c2")
    assert load.load().state_folder == tmp_path / "one"
    assert load.load().cache_folder == tmp_path / "c1" / "frames"
    monkeypatch.setenv("STATE_DIRECTORY", ":")
    assert load.load().state_folder == Path.cwd() / "state"
    (tmp_path / "etc2").mkdir()
    (tmp_path / "etc2" / "nirid.toml").touch()
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", f"{tmp_path}/etc1:{tmp_path}/etc2")
    assert load.find_file() == tmp_path / "etc2" / "nirid.toml"


def test_folders_stay_where_they_were_when_the_working_folder_goes(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loaded = load.load()
    shutil.rmtree(tmp_path / "here")
    assert loaded.state_folder == tmp_path / "here" / "state"


def test_what_others_keep_in_a_drop_folder_is_passed_over(tmp_path):
    for name in ("lost+found", "System Volume Information", "night"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "N20160102S0001.fits").touch()
    found = Index().sweep([str(tmp_path)])
    assert [path for path, _ in found.candidates] == [str(tmp_path / "night" / "N20160102S0001.fits")]


@pytest.mark.parametrize(
    ("closed", "error"), [("lost+found", None), ("of-root", None), ("20160102", PermissionError)]
)
def test_a_closed_folder_among_the_products_matters_where_it_is_a_night(tmp_path, monkeypatch, closed, error):
    scandir = os.scandir

    def some(path):
        if os.fspath(path).endswith(closed):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    for name in (closed, "20160103"):
        (tmp_path / name).mkdir()
    (tmp_path / "20160103" / "a.fits").touch()
    monkeypatch.setattr(os, "scandir", some)
    if error:
        with pytest.raises(error):
            list(audit.product_files(tmp_path))
    else:
        assert list(audit.product_files(tmp_path)) == [tmp_path / "20160103" / "a.fits"]


def test_what_is_put_aside_may_go_to_another_file_system(tmp_path, monkeypatch):
    old, kept = tmp_path / "a.fits", tmp_path / "superseded" / "a.v0001.fits"
    old.write_bytes(b"odd")
    replace = os.replace

    def apart(source, target):
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", apart)
    moving._put_aside(old, kept)
    assert [p.name for p in kept.parent.iterdir()] == ["a.v0001.fits.damaged"]
    assert not old.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_be_asked_for_its_room_has_enough(tmp_path, monkeypatch, number):
    def nothing(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "statvfs", nothing)
    guard = DiskGuard({"products": tmp_path}, 1e12, 1000, look=diskguard.room_to_write)
    assert guard.check(0.0) == ""
    monkeypatch.setattr(os, "statvfs", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    assert "I/O error" in guard.check(100.0)


# -- limits --------------------------------------------------------------------------------------


@pytest.fixture
def system(monkeypatch):
    """The limits of a system: {kind: (soft, hard)}; what is set is kept."""
    there = {}
    unlimited = (resource.RLIM_INFINITY,) * 2

    def change(kind, new):
        hard = there.get(kind, unlimited)[1]
        if hard != resource.RLIM_INFINITY and max(new) > hard:
            raise ValueError("not allowed to raise maximum limit")
        there[kind] = new

    monkeypatch.setattr(resource, "getrlimit", lambda kind: there.get(kind, unlimited))
    monkeypatch.setattr(resource, "setrlimit", change)
    return there


@pytest.mark.parametrize(
    ("before", "after"),
    [((-1, -1), 1500), ((-1, 300 << 20), 300), ((200 << 20, -1), 200), ((9e9, 9e9), 1500)],
)
def test_a_worker_takes_the_lower_limit(system, before, after):
    system[resource.RLIMIT_DATA] = before
    child._set_limits(1500)
    assert system[resource.RLIMIT_DATA] == (after << 20, after << 20)
    assert system[resource.RLIMIT_CORE] == (0, 0)


@pytest.mark.parametrize(("before", "after"), [((21, 21), None), ((21, 1024), 1024), ((1024, 1 << 20), 4096)])
def test_open_files_are_raised_as_far_as_we_may_or_told(system, before, after):
    system[resource.RLIMIT_NOFILE] = before
    if after is None:
        with pytest.raises(NiridError, match="only 21 files may be open at a time, and 54 are needed"):
            limits.make_room_for(limits.files_for(Config()))
    else:
        limits.make_room_for(limits.files_for(Config()))
        assert system[resource.RLIMIT_NOFILE] == (after, before[1])


def test_limits_that_are_in_the_way_are_named(system):
    assert limits.too_low(Config()) == []
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        system[kind] = (20, 20)
    said = " ".join(limits.too_low(Config()))
    assert all(f"ulimit -{letter}" in said for letter in "ndft")


# -- why a worker died -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "last", "ending", "says"),
    [
        (-signal.SIGKILL, "", "killed", "SIGKILL: by the kernel, if memory ran out"),
        (-signal.SIGTERM, "", "killed", "SIGTERM: from outside"),
        (-signal.SIGXCPU, "", "killed", "ulimit -t"),
        (-signal.SIGBUS, "", "killed", "a disk under a mapped file"),
        (-signal.SIGHUP, "", "killed", "from outside"),
        (-signal.SIGSEGV, "", "died", "SIGSEGV"),
        (-signal.SIGABRT, "LLVM ERROR: out of memory", "memory", "out of memory"),
        (1, "OpenBLAS error: Memory allocation still failed after 10 retries", "memory", "exit 1"),
        (1, "ValueError: odd", "died", "ValueError: odd"),
        (-99, "", "killed", "signal 99"),
    ],
)
def test_the_death_of_a_worker_is_sorted(code, last, ending, says):
    got, words = deaths.of(code, last, Memory(), Memory())
    assert got == ending
    assert says in words


def test_a_memory_limit_that_kills_is_named():
    _, words = deaths.of(-signal.SIGKILL, "", Memory(512 << 20, 3), Memory(512 << 20, 4))
    assert "as memory ran out; the memory limit of this service or container is 512 MB" in words


@pytest.mark.parametrize("kind", ["", "memory"])
def test_the_memory_limit_is_the_lowest_of_all_groups_around_us(tmp_path, kind):
    most, events = (
        ("memory.limit_in_bytes", "memory.oom_control") if kind else ("memory.max", "memory.events")
    )
    top = tmp_path / "groups" / kind
    for folder, limit in (("", "max" if not kind else str(1 << 63)), ("a", "1000"), ("a/b", "2000")):
        (top / folder).mkdir(parents=True, exist_ok=True)
        (top / folder / most).write_text(f"{limit}\n")
    (top / "a" / events).write_text("low 0\noom_kill 2\n")
    own = tmp_path / "cgroup"
    own.write_text(f"7:pids:/x\n{4 if kind else 0}:{kind}:/a/b\n")
    assert Memory.now(tmp_path / "groups", own) == Memory(1000, 2)
    own.write_text("0::/\n")
    assert Memory.now(tmp_path / "nowhere", own) == Memory()
    assert Memory.now(tmp_path, tmp_path / "no file") == Memory()


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (ImportError("libx.so: cannot open shared object file"), "io"),
        (OSError(errno.EIO, "I/O error"), "io"),
        (ValueError("odd"), "failed"),
        (NiridError("bad frame"), "failed"),
    ],
)
def test_an_error_of_the_machine_is_none_of_the_data(error, ending):
    assert child._sorted(error)["ending"] == ending
    wrapped = NiridError("a step failed")
    wrapped.__cause__ = error
    assert child._sorted(wrapped)["ending"] == ("memory" if ending == "memory" else "failed")
