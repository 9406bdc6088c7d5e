"""What a command does where its streams, its working folder or PYTHONPATH are not as they should be."""

import codecs
import os
import subprocess
import sys
import time

import pytest

from daemon import guard
from daemon.cli import streams

NIRID = [sys.executable, "-P", "-m", "daemon"]


def shell(line, cwd, **environment):
    """One line of a shell, with nirid in it; (exit code, standard output, standard error)."""
    line = line.replace("nirid", " ".join(NIRID))
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("nirid check-config >&-", 1, "nirid: standard output cannot be written: it was closed\n"),
        ("nirid --version >/dev/full", 1, "nirid: standard output cannot be written: No space left"),
        ("nirid check-config <&- >/dev/null", 0, ""),
        ("nirid check-config 2>&- >/dev/null", 0, ""),
        ("nirid --state none status <&- >&- 2>&-", 1, ""),
        ("nirid check-config | head -1 >/dev/null; exit ${PIPESTATUS[1]}", 0, ""),
        ("rmdir $PWD; nirid status", 1, "nirid: the folder in which this was started is not there any more"),
        ("rmdir $PWD; nirid typewalk", 1, "the folder in which this was started is not there any more"),
        ("rmdir $PWD; nirid --version", 0, ""),
    ],
)  # fmt: skip
def test_closed_streams_and_a_deleted_folder_have_a_word(tmp_path, line, code, says):
    here = tmp_path / "here"
    here.mkdir()
    got, _, error = shell(line, here)
    assert got == code
    assert error.startswith(says) if says.endswith("\n") else says in error
    assert says or not error


def test_the_next_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    """A database that was opened as number 2 would get our error messages."""
    code = "from daemon.cli import streams; streams.settle(); import sys; "
    code += "print(open('/dev/null').fileno() > 2, file=open('said', 'w'))"
    shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path)
    assert (tmp_path / "said").read_text() == "True\n"


def test_a_name_that_the_terminal_cannot_show_is_written_out(tmp_path):
    code, out, _ = shell("nirid --state $'caf\\xc3\\xa9' check-config", tmp_path, PYTHONIOENCODING="ascii")
    assert code == 0
    assert r"caf\xe9" in out


@pytest.mark.parametrize(
    ("how", "path"), [(streams._carried, b"caf\xe9 \\xe9"), (streams._shown, rb"caf\xe9 \xe9")]
)
def test_a_path_that_is_no_text_is_carried_through_a_pipe_and_written_out_at_a_terminal(how, path):
    codecs.register_error("odd", how)
    assert "caf\udce9 \xe9".encode("ascii", "odd") == path


def test_another_locale_names_no_file_in_another_way(tmp_path):
    (tmp_path / "caf\xe9").mkdir()
    strange = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code, out, error = shell("nirid --state $'caf\\xc3\\xa9' check-config --json", tmp_path, **strange)
    assert (code, error) == (0, "")
    assert r"caf\u00e9" in out


def test_what_pythonpath_brings_along_comes_last(tmp_path):
    for name in ("daemon", "pipeline", "click", "numpy", "structlog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('a foreign {name}')")
    (tmp_path / "only_there.py").write_text("")
    (tmp_path / "python_daemon-3.0.dist-info").mkdir()
    (tmp_path / "python_daemon-3.0.dist-info" / "METADATA").write_text("Name: python-daemon\nVersion: 3.0\n")
    (tmp_path / "python_daemon-3.0.dist-info" / "top_level.txt").write_text("daemon\n")
    root = os.path.dirname(os.path.dirname(guard.__file__))
    begin = f"import sys; sys.path.append({root!r}); from nirid_start import main"
    check = "import numpy, only_there; from daemon import guard; print(guard.complaint())"
    code = f"import atexit; atexit.register(lambda: exec({check!r})); {begin}; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "None"


def test_a_worker_finds_its_packages_where_the_daemon_does(tmp_path, monkeypatch):
    from daemon.engine.local import LocalEngine

    (tmp_path / "theirs" / "daemon").mkdir(parents=True)
    (tmp_path / "theirs" / "daemon" / "__init__.py").write_text("raise ImportError('a foreign daemon')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
    told = []
    engine = LocalEngine(1, runner="no.such.module:run", on_change=told.append)
    engine.start()
    until = time.monotonic() + 30
    while not told and time.monotonic() < until:
        engine.poll()
        time.sleep(0.01)
    engine.stop()
    assert "No module named 'no'" in told[0]
