"""The command: help, exit codes, one JSON document and nothing else on standard output."""

import json
import subprocess
import sys
import time

import pytest

pytest.importorskip("pipeline.steps.stack")  # `run` and `check-config` bind the recipes


@pytest.fixture
def nirid(tmp_path):
    def nirid(*words, code=0):
        command = [sys.executable, "-P", "-m", "daemon", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return nirid


def test_help_is_quick_and_names_the_commands(nirid):
    began = time.monotonic()
    said = nirid("--help").stdout
    assert time.monotonic() - began < 1.5  # 0.4 s on a quiet machine
    for command in ("run", "status", "ledger", "audit", "check-config", "simulate", "demo"):
        assert f"\n  {command} " in said


def test_help_loads_nothing_heavy():
    program = (
        "import sys\nfrom daemon.cli import main\nsys.argv = ['nirid', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "bad = {'numpy', 'astropy', 'peewee', 'rich', 'watchdog', 'apscheduler'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_version(nirid):
    assert nirid("--version").stdout.startswith("nirid, version ")


def test_wrong_usage_is_2(nirid):
    assert "No such option" in nirid("run", "--untill-idle", code=2).stderr
    nirid("no-such-command", code=2)
    assert "no preset exmaple" in nirid("simulate", "x", "--preset", "exmaple", code=2).stderr


def test_a_spelling_mistake_in_the_configuration_is_78_and_one_line(nirid, tmp_path):
    (tmp_path / "n.toml").write_text("[watch]\nsetle_seconds = 1\n")
    for command in (["run"], ["check-config"], ["status"]):
        done = nirid("--config", "n.toml", *command, code=78)
        assert (
            done.stderr
            == "nirid: n.toml:2: watch.setle_seconds: no such option; did you mean settle_seconds?\n"
        )
        assert done.stdout == ""


def test_folders_inside_one_another_are_78(nirid):
    assert "contain one another" in nirid("run", "--drop", "a", "--products", "a/p", code=78).stderr


def test_check_config_says_where_each_value_came_from(nirid, tmp_path):
    (tmp_path / "n.toml").write_text("[engine]\nworkers = 3\n")
    answer = json.loads(nirid("--config", "n.toml", "--state", "elsewhere", "check-config", "--json").stdout)
    assert answer["file"] == "n.toml"
    assert answer["options"]["engine.workers"] == {"value": 3, "from": "file"}
    assert answer["options"]["state.folder"] == {"value": "elsewhere", "from": "command line"}
    assert answer["options"]["watch.folders"] == {"value": ["drop"], "from": "default"}
    assert "engine.workers" in nirid("--config", "n.toml", "check-config").stdout


@pytest.mark.parametrize("command", ["status", "ledger", "audit"])
def test_without_a_database_reports_say_so_in_one_line(nirid, command):
    done = nirid(command, code=1)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "no database" in done.stderr


def test_a_state_that_does_not_exist(nirid):
    assert "did you mean quarantined?" in nirid("ledger", "--state", "quarantine", code=2).stderr
