"""Fixtures of several unit tests."""

import logging

import pytest
import structlog

from daemon.cli import main


@pytest.fixture
def nirid(tmp_path, monkeypatch, capsys):
    """The command in this process, in an empty folder; answers with what it wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIRID_CONFIG", raising=False)

    def nirid(*words, code=0):
        with pytest.raises(SystemExit) as end:
            main(words)
        done = capsys.readouterr()
        assert end.value.code == code, done
        return done

    yield nirid
    structlog.reset_defaults()
    logging.basicConfig(force=True)
    logging.captureWarnings(False)
