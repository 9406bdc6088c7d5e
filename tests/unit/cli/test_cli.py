"""The command: help, exit codes, one JSON document and nothing else on standard output."""

import json
import subprocess
import sys

import pytest


def test_help_names_the_commands():
    command = [sys.executable, "-P", "-m", "daemon", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
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
    assert nirid("--version").out.startswith("nirid, version ")


def test_wrong_usage_is_2(nirid):
    assert "No such option" in nirid("run", "--untill-idle", code=2).err
    nirid("no-such-command", code=2)
    assert "no preset exmaple" in nirid("simulate", "x", "--preset", "exmaple", code=2).err


def test_a_spelling_mistake_in_the_configuration_is_78_and_one_line(nirid, tmp_path):
    (tmp_path / "n.toml").write_text("[watch]\nsetle_seconds = 1\n")
    for command in (["run"], ["check-config"], ["status"]):
        done = nirid("--config", "n.toml", *command, code=78)
        assert (
            done.err == "nirid: n.toml:2: watch.setle_seconds: no such option; did you mean settle_seconds?\n"
        )
        assert done.out == ""


def test_folders_inside_one_another_are_78(nirid):
    assert "contain one another" in nirid("run", "--drop", "a", "--products", "a/p", code=78).err


def test_a_batch_of_a_folder_that_is_not_there_is_not_done(nirid, tmp_path):
    said = nirid("run", "--until-idle", "--drop", "nigth", code=1)
    assert said.err == f"nirid: {tmp_path / 'nigth'}: no such folder\n"
    assert not (tmp_path / "nigth").exists()


def test_check_config_says_where_each_value_came_from(nirid, tmp_path):
    (tmp_path / "n.toml").write_text("[engine]\nworkers = 3\n")
    answer = json.loads(nirid("--config", "n.toml", "--state", "elsewhere", "check-config", "--json").out)
    assert answer["file"] == "n.toml"
    assert answer["options"]["engine.workers"] == {"value": 3, "from": "file"}
    assert answer["options"]["state.folder"] == {"value": "elsewhere", "from": "command line"}
    assert answer["options"]["watch.folders"] == {"value": ["drop"], "from": "default"}
    assert "engine.workers" in nirid("--config", "n.toml", "check-config").out


def test_global_options_may_stand_after_the_command(nirid, tmp_path):
    (tmp_path / "n.toml").write_text("[engine]\nworkers = 3\n")
    answer = json.loads(nirid("check-config", "--json", "--config", "n.toml", "--state", "later").out)
    assert answer["options"]["engine.workers"] == {"value": 3, "from": "file"}
    assert answer["options"]["state.folder"]["value"] == "later"
    assert "later/nirid.db" in nirid("status", "--state", "later", code=1).err
    assert "later/nirid.db" in nirid("--state", "first", "audit", "--state", "later", code=1).err
    # Where a command has an option of that name, it means what the command says.
    assert "first/nirid.db" in nirid("--state", "first", "ledger", "--state", "ready", code=1).err


@pytest.mark.parametrize("command", ["status", "ledger", "audit"])
def test_without_a_database_reports_say_so_in_one_line(nirid, command):
    done = nirid(command, code=1)
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert "no database" in done.err


def test_a_state_that_does_not_exist(nirid):
    assert "did you mean quarantined?" in nirid("ledger", "--state", "quarantine", code=2).err


@pytest.fixture
def of_machine(tmp_path, monkeypatch):
    """A service that is installed below a root of its own; answers with the root."""
    root = tmp_path / "root"
    (root / "etc/nirid").mkdir(parents=True)
    (root / "etc/nirid/nirid.toml").write_text("[engine]\nworkers = 7\n")
    monkeypatch.setenv("NIRID_ROOT", str(root))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "to be put back as it was")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return root


def test_commands_find_the_service(nirid, of_machine):
    said = json.loads(nirid("check-config", "--json").out)
    assert said["file"] == str(of_machine / "etc/nirid/nirid.toml")
    assert said["found"] == "of the service on this machine"
    assert said["options"]["engine.workers"] == {"value": 7, "from": "file"}
    assert f"{of_machine}/var/lib/nirid/nirid.db: no database" in nirid("status", code=1).err
    own = json.loads(nirid("--state", "mine", "check-config", "--json").out)
    assert (own["file"], own["options"]["engine.workers"]["value"]) == (None, 2)
    assert "another state folder" in own["found"]


def test_a_run_on_folders_of_its_own_is_not_the_service(nirid, of_machine, tmp_path):
    (tmp_path / "drop").mkdir()
    said = nirid("run", "--until-idle", "--drop", "drop")
    assert "not_the_service" in said.err
    assert (tmp_path / "state/nirid.db").exists()
    assert not (of_machine / "var").exists()
