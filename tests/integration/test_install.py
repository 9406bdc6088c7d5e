"""The README's service section, run line by line against a root of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("systemd-sysusers", "systemd-tmpfiles", "systemd-analyze", "systemctl")
UNITS = Path("/lib/systemd/system")  # the targets that the service is ordered by

# What the root has no use for: packages of this machine, the network, and a manager that runs.
PIP = """#!/bin/sh
test "$*" = "install ." && test -e pyproject.toml || exit 9
printf '#!/bin/sh\\nexec {python} -P -m daemon "$@"\\n' > "$(dirname "$0")/nirid"
chmod 755 "$(dirname "$0")/nirid"
"""
STAND_INS = {
    "apt-get": '#!/bin/sh\ntest "$*" = update || test "$*" = "install -y python3-venv"\n',
    "python3": (
        '#!/bin/sh\ntest "$1 $2" = "-m venv" && exec {python} -m venv --without-pip "$3" && exit\nexit 9\n'
    ),
    "systemctl": (
        "#!/bin/sh\n"
        'case "$1" in enable) exec {systemctl} --root={root} "$@";; daemon-reload|restart|--no-pager) ;; '
        "*) exit 9;; esac\n"
    ),
}


def lines():
    """The commands of the README's section on the service, as they stand there."""
    text = (REPOSITORY / "README.md").read_text()
    section = text.split("\n## As a service\n")[1].split("\n## ")[0]
    found = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert len(found) > 5
    return found


def below(root, line):
    """The same line, with every folder and every tool below the root."""
    line = re.sub(r"(?<![\w./])/(?=(opt|etc|usr|srv|var)\b)", f"{root}/", line)
    return re.sub(r"\b(systemd-sysusers|systemd-tmpfiles)\b", rf"\1 --root={root}", line)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(TOOLS)}" + (f"; here is no {missing[0]}" if missing else ""))
    root, tools = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("tools")
    told = {"python": sys.executable, "root": root, "systemctl": shutil.which("systemctl")}
    for name, text in STAND_INS.items():
        (tools / name).write_text(re.sub(r"\{(\w+)\}", lambda m: str(told[m[1]]), text))
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    for line in lines():
        run(root, line, environment)
    return root


def run(root, line, environment):
    if " && /opt/nirid/bin/pip" in line:  # the environment is real, but nothing is fetched for it
        first, second = line.rsplit(" && ", 1)
        run(root, first, environment)
        pip = root / "opt/nirid/bin/pip"
        pip.write_text(PIP.replace("{python}", sys.executable))
        pip.chmod(0o755)
        line = second
    done = subprocess.run(
        ["sh", "-euc", below(root, line)], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def account(root):
    (line,) = [line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("nirid:")]
    _, _, uid, gid, _, home, shell = line.split(":")
    return int(uid), int(gid), home, shell


def unit(root):
    text = (root / "etc/systemd/system/nirid.service").read_text()
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line and line[0] != "#")


def test_every_folder_that_the_service_needs_is_there(root):
    uid, gid, home, shell = account(root)
    found = {
        name: (facts.st_uid, facts.st_gid, oct(facts.st_mode & 0o7777))
        for name in ("srv/nirid", "srv/nirid/drop", "srv/nirid/products", "var/lib/nirid", "var/cache/nirid")
        for facts in [(root / name).stat()]
    }
    assert found == {
        "srv/nirid": (0, 0, "0o755"),
        "srv/nirid/drop": (0, gid, "0o2775"),
        "srv/nirid/products": (uid, gid, "0o755"),
        "var/lib/nirid": (uid, gid, "0o750"),
        "var/cache/nirid": (uid, gid, "0o755"),
    }
    assert (home, Path(shell).name) == ("/var/lib/nirid", "nologin")
    said = unit(root)
    for name in ("WorkingDirectory", "ReadWritePaths", "RequiresMountsFor"):
        assert (root / said[name].lstrip("/")).is_dir(), name
    assert said["User"] == said["Group"] == "nirid"
    assert (root / "etc/systemd/system/multi-user.target.wants/nirid.service").is_symlink()


def test_the_unit_is_one_that_systemd_takes(root):
    if not UNITS.is_dir():
        pytest.skip(f"without {UNITS} systemd-analyze cannot know the targets")
    (root / "usr/lib/systemd").mkdir(parents=True, exist_ok=True)
    shutil.copytree(UNITS, root / "usr/lib/systemd/system", symlinks=True, dirs_exist_ok=True)
    file = root / "etc/systemd/system/nirid.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", f"--root={root}", file],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_command_is_there_and_means_the_service(root):
    command = root / "usr/local/bin/nirid"
    assert Path(os.readlink(command)) == root / unit(root)["ExecStart"].split()[0].lstrip("/")
    environment = {**os.environ, "NIRID_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    for name in ("NIRID_CONFIG", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        environment.pop(name, None)
    said = json.loads(
        subprocess.run(
            [command, "check-config", "--json"], env=environment, capture_output=True, check=True, cwd="/"
        ).stdout
    )
    assert said["file"] == str(root / "etc/nirid/nirid.toml")
    assert said["state"] == str(root / "var/lib/nirid")
    assert said["options"]["watch.folders"]["value"] == [str(root / "srv/nirid/drop")]


def test_once_more_keeps_what_the_operator_has_set(root, tmp_path):
    (line,) = [line for line in lines() if "nirid.toml" in line]
    file = root / "etc/nirid/nirid.toml"
    shipped = (REPOSITORY / "config/nirid.toml").read_bytes()
    assert file.read_bytes() == shipped
    file.write_text("[engine]\nworkers = 1\n")
    run(root, line, dict(os.environ))
    assert file.read_text() == "[engine]\nworkers = 1\n"
    file.write_bytes(shipped)


def test_nothing_of_this_machine_is_meant():
    for line in lines():
        left = re.findall(r"(?<![\w./])/(?:opt|etc|usr|srv|var|lib|home|run)\b", below("R", line))
        assert left == [], line
