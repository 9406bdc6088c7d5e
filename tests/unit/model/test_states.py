"""Every change of state is in one table; the others raise."""

import pytest

from daemon.model.states import (
    FILE_TRANSITIONS,
    JOB_TRANSITIONS,
    FileState,
    IllegalTransition,
    JobState,
    check_file,
    check_job,
)


def test_every_state_has_its_row():
    assert set(FILE_TRANSITIONS) == set(FileState)
    assert set(JOB_TRANSITIONS) == set(JobState)


@pytest.mark.parametrize("old", FileState)
@pytest.mark.parametrize("new", FileState)
def test_files(old, new):
    if new == old or new in FILE_TRANSITIONS[old]:
        check_file(old, new)
    else:
        with pytest.raises(IllegalTransition, match=f"from {old} to {new}"):
            check_file(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("done", "running"),
        ("done", "planned"),
        ("waiting", "running"),
        ("planned", "done"),
        ("failed", "done"),
    ],
)
def test_what_a_job_may_never_do(old, new):
    with pytest.raises(IllegalTransition):
        check_job(old, new)


@pytest.mark.parametrize(
    ("old", "new"), [("ready", "seen"), ("quarantined", "vanished"), ("superseded", "incomplete")]
)
def test_what_a_file_may_never_do(old, new):
    with pytest.raises(IllegalTransition):
        check_file(old, new)
