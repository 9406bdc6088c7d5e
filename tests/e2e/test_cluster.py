"""A night on a Dask cluster, a worker of which is killed in the middle of a job."""

import re
import shutil
import subprocess

import pytest

from tests.cluster import Cluster
from tests.e2e.test_night import TINY, Place, frames, right, tiny_night  # noqa: F401  (a fixture)

# In the first child that begins a job: SIGKILL to the Dask worker that holds it, before its fourth step.
KILLER = """
import os, signal, sys
if "daemon.engine.child" in sys.orig_argv:
    import daemon.work.worker
    run = daemon.work.worker.run
    def killing(job, should_stop):
        steps = []
        def in_the_middle():
            steps.append(1)
            if len(steps) == 4:
                try:
                    os.close(os.open({victim!r}, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getppid(), signal.SIGKILL)
                    signal.pause()
            return should_stop()
        return run(job, in_the_middle)
    daemon.work.worker.run = killing
"""

ENGINE = '[engine]\nkind = "dask"\nscheduler = "{address}"\n[log]\nlevel = "info"\n'


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "hook").mkdir()
    victim = str(tmp_path / "victim")
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILLER.format(victim=victim))
    cluster = Cluster(tmp_path / "dask", environment={"PYTHONPATH": str(tmp_path / "hook")})
    yield cluster
    cluster.close()


def test_a_killed_worker_changes_no_bit_of_any_product(cluster, tiny_night, tmp_path):  # noqa: F811
    home, away = (_place(tmp_path / name, tiny_night) for name in ("home", "away"))
    home.run()
    config = away.folder / "nirid.toml"
    config.write_text(ENGINE.format(address=cluster.address))

    def nirid(*words):
        command = away.command(*words, config=config)
        return subprocess.run(command, capture_output=True, text=True, cwd=away.folder, timeout=300)

    folders = ("--drop", str(away.drop), "--products", str(away.products))
    done = nirid("run", "--until-idle", *folders)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "victim").exists()
    (interrupted,) = (line for line in done.stderr.splitlines() if '"job_interrupted"' in line)
    assert '"ending": "killed"' in interrupted
    assert "the Dask worker tcp://127.0.0.1:" in interrupted
    right(away, tiny_night, TINY)
    assert away.made() == home.made()
    status = away.json("status")
    assert status["counts"]["jobs"] == {"done": 4}
    assert {row["runs"] for row in away.ledger().values() if row["state"] == "ready"} == {1}
    assert list((away.products / ".staging").iterdir()) == []
    said = nirid("doctor").stdout
    assert re.search(rf"Dask scheduler {cluster.address}: 2 of 2 workers can be used \(nirid ", said), said


def _place(folder, night):
    folder.mkdir()
    place = Place(folder)
    for path in frames(night):
        shutil.copy(path, place.drop)
    return place
