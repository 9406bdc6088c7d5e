"""The figures for Prometheus: what has happened is counted once, and every name that is used exists."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config.options import Config, State
from daemon.model.files import Signature
from daemon.people import missing
from daemon.upkeep import metrics
from daemon.upkeep.metrics import METRICS, Figures, Writer
from tests.night import FakeEngine, example1, frame, static_bpm

TOP = Path(__file__).parents[2]
OWN_OF_WEB = {"nirid_web_viewers", "nirid_web_dropped_total"}
SELDOM = {"nirid_jobs_failed_total"}  # with a label, and no job has failed
LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[\d.e+]+|NaN)')


class Engine(FakeEngine):
    def stage(self, spec):
        result = super().stage(spec)
        result["quality"] |= {"ZENFWHM": 0.52, "BGMAG": 13.9, "CLOUDEXT": 0.05}
        return result


def parsed(text):
    """{(name, labels): value}; every line is one of the format."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP|TYPE) nirid_[a-z_]+ .+", line), line
            continue
        match = LINE.fullmatch(line)
        assert match, line
        labels = tuple(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        assert (match[1], labels) not in found
        found[match[1], labels] = float(match[3])
    return found


def of_daemon(daemon, figures, machine=None):
    with daemon.ledger.read() as db:
        figures.follow(db)
        return parsed(figures.text({**metrics.of_ledger(db), **(machine or {})}))


def test_a_night_is_counted_once(daemons):
    daemon = daemons(engine=Engine(), looks=True)
    figures = Figures()
    daemon.land(*example1(), static_bpm())
    daemon.run(600)
    told = of_daemon(daemon, figures)
    again = of_daemon(daemon, figures)
    assert told == again
    assert told["nirid_frames_ingested_total", ()] == 56
    assert told["nirid_files", (("state", "ready"),)] == 55
    made = daemon.rows("SELECT j.recipe, COUNT(*) AS n FROM attempt a JOIN job j ON j.id = a.job_id "
                       "WHERE a.outcome = 'done' GROUP BY j.recipe")  # fmt: skip
    for row in made:
        assert told["nirid_job_seconds_count", (("recipe", row["recipe"]),)] == row["n"]
    assert told["nirid_image_quality_arcseconds", (("setting", "f6 K(prime)"),)] == 0.52
    assert told["nirid_last_frame_timestamp_seconds", ()] > 1.6e9


def test_how_long_a_file_waited_is_counted_of_what_landed_since_the_start(daemons):
    """A file that lay there before the daemon, as of an archive, says nothing of its haste."""
    daemon = daemons()
    now = 1.6e9 + daemon.now
    figures = Figures(since=now - 100)
    for number, landed in ((1, -2.5), (2, -0.2), (3, -5000.0), (4, +60.0)):
        one = frame("dark", number, 30 * number)
        times = Signature(1, number, 100, 1, int((now + landed) * 1e9))
        daemon.land(replace(one, signature=times))
    told = of_daemon(daemon, figures)
    assert told["nirid_frames_ingested_total", ()] == 4
    assert told["nirid_ingest_seconds_count", ()] == 2
    assert told["nirid_ingest_seconds_bucket", (("le", "0.25"),)] == 1
    assert told["nirid_ingest_seconds_sum", ()] == pytest.approx(2.7, abs=1e-3)


def test_what_is_served_is_what_prometheus_reads(daemons):
    """By its own parser: types, labels, histograms that rise to +Inf; no label has what there are many of."""
    parser = pytest.importorskip("prometheus_client.parser")
    daemon = daemons(engine=Engine(), looks=True)
    figures = Figures()
    daemon.land(*example1(), static_bpm())
    daemon.run(600)
    with daemon.ledger.read() as db:
        figures.follow(db)
        config = Config(state=State(str(daemon.folder)), base=str(daemon.folder))
        machine = metrics.of_machine(config, heart=1.7e9, modes=["native"], paused=False, missing={"dark": 1})
        text = figures.text({**metrics.of_ledger(db), **machine})
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    for name, family in families.items():
        kind = METRICS[name if name in METRICS else f"{name}_total"].kind
        assert family.type == kind
        for sample in family.samples:
            words = [word for key, word in sample.labels.items() if key != "le"]
            assert not [w for w in words if re.search(r"GN-|SN2014J|FS.?17|\d{8}|/|\.fits", w)], sample
    assert families["nirid_build_info"].samples[0].labels["version"]
    rows = [s for s in families["nirid_job_seconds"].samples if s.name.endswith("_bucket")]
    for recipe in {s.labels["recipe"] for s in rows}:
        of_it = [s for s in rows if s.labels["recipe"] == recipe]
        counts = [s.value for s in of_it]
        assert [s.labels["le"] for s in of_it][-1] == "+Inf"
        assert counts == sorted(counts)


def test_buckets_of_a_histogram_add_up():
    figures = Figures()
    for seconds in (0.1, 0.3, 0.5, 3.0, 7000.0):
        figures.observe("nirid_job_seconds", seconds, recipe="reduce")
    told = parsed(figures.text({}))
    of = lambda bound: told["nirid_job_seconds_bucket", (("recipe", "reduce"), ("le", bound))]  # noqa: E731
    assert [of("0.25"), of("0.5"), of("1"), of("5"), of("900"), of("+Inf")] == [1, 3, 3, 4, 4, 5]
    assert told["nirid_job_seconds_count", (("recipe", "reduce"),)] == 5
    assert told["nirid_job_seconds_sum", (("recipe", "reduce"),)] == pytest.approx(7003.9)


def test_what_the_machine_knows(daemons, tmp_path):
    config = Config(state=State(str(tmp_path)), base=str(tmp_path))
    machine = metrics.of_machine(
        config, heart=1.7e9, modes=["native", "missing: gone"], paused=True, missing={"dark": 2}
    )
    told = parsed(Figures().text(machine))
    assert told["nirid_heartbeat_timestamp_seconds", ()] == 1.7e9
    assert told["nirid_watch_backend_info", (("observer", "missing"),)] == 1
    assert told["nirid_calibrations_missing", (("kind", "dark"),)] == 2
    assert told["nirid_paused", ()] == 1
    assert told["nirid_disk_free_bytes", (("what", "state"),)] > 1e6


def test_what_tonight_needs_is_counted_by_kind(daemons):
    daemon = daemons()
    daemon.land(frame("science", 270, 0), frame("science", 271, 30))
    now = frame("science", 271, 30).descriptors.ut_datetime.timestamp() + 60
    watch = missing.Watch(daemon.ledger, daemon.setting.rules, lambda: now)
    assert watch.open() == {"dark": 0, "flat": 0, "standard": 0}
    watch.look(touched=True)
    assert watch.open() == {"dark": 1, "flat": 1, "standard": 1}


def test_the_file_is_written_whole_and_goes_with_the_daemon(daemons, tmp_path):
    daemon = daemons(engine=Engine())
    config = Config(state=State(str(tmp_path)), base=str(tmp_path))
    writer = Writer(config, daemon.ledger, dict)
    writer.once()
    daemon.land(*example1()[:3])
    writer.clock = lambda: float("inf")
    writer.once()
    told = parsed((tmp_path / "metrics.prom").read_text())
    assert told["nirid_frames_ingested_total", ()] == 3
    assert told["nirid_files", (("state", "ready"),)] == 3
    with writer.running():
        pass
    assert not (tmp_path / "metrics.prom").exists()


def test_a_label_that_is_odd_is_escaped():
    text = Figures().text({"nirid_queue_depth": {(("class", 'a"b\\c\nd'),): 1}})
    assert 'class="a\\"b\\\\c\\nd"' in text
    parsed(text)


def names_in(path):
    return set(re.findall(r"\bnirid_[a-z_]+", path.read_text("utf-8")))


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
def test_every_name_on_a_board_or_in_a_rule_is_written(file, daemons):
    """By a daemon that has had a night, not only in a table of names."""
    daemon, figures = daemons(engine=Engine(), looks=True), Figures()
    landed = [
        replace(r, signature=r.signature._replace(ctime_ns=int(1.6e18))) for r in (*example1(), static_bpm())
    ]
    daemon.land(*landed)
    daemon.run(600)
    config = Config(state=State(str(daemon.folder)), base=str(daemon.folder))
    machine = metrics.of_machine(config, heart=1.7e9, modes=["native"], paused=False, missing={"dark": 1})
    known = {name for name, _ in of_daemon(daemon, figures, machine)} | OWN_OF_WEB
    families = {name.removesuffix("_count") for name in known}
    assert set(METRICS) - families <= SELDOM
    known |= SELDOM
    found = names_in(TOP / "monitoring" / file)
    assert len(found) > 6
    assert found <= known


def test_the_board_and_the_rules_can_be_read():
    yaml = pytest.importorskip("yaml")
    board = json.loads((TOP / "monitoring/grafana.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    rules = yaml.safe_load((TOP / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    assert all({"alert", "expr", "labels", "annotations"} <= set(rule) for rule in rules)
    assert all({"summary", "do"} <= set(rule["annotations"]) for rule in rules)


def test_names_are_as_prometheus_wants_them():
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert not set(metric.labels) & {"file", "path", "program", "object", "night"}, name


class Log:
    def __init__(self, said):
        self.said = said

    def warning(self, event, *, error, **more):
        self.said.append(error)


def test_a_failure_is_said_once_and_the_figures_go_on(monkeypatch, tmp_path):
    """Whatever goes wrong, of the system or in a figure, the file is written again as soon as it can be."""
    failures = [OSError("disk full"), OSError("disk full"), ValueError("odd"), None, OSError("disk full")]
    said, done = [], []

    def once():
        failure = failures.pop(0) if failures else None
        if failure is not None:
            raise failure
        done.append(1)

    writer = Writer(Config(state=State(str(tmp_path))), None, dict)
    monkeypatch.setattr(writer, "once", once, raising=False)
    monkeypatch.setattr(metrics, "EVERY", 0.01)
    monkeypatch.setattr(metrics.logs, "get", lambda: Log(said))
    with writer.running():
        for _ in range(500):
            if len(done) >= 3:
                break
            writer._stop.wait(0.01)
    assert len(done) >= 3
    assert said == ["OSError('disk full')", "ValueError('odd')", "OSError('disk full')"]
