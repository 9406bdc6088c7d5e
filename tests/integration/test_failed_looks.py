"""A look that fails."""

from daemon.config.options import Retention
from daemon.upkeep import retention
from tests.integration.test_looks import daemons, told  # noqa: F401  (a fixture)
from tests.night import FakeEngine, example1


def test_a_failed_look_says_why_and_old_records_go(daemons):  # noqa: F811
    daemon = daemons(engine=FakeEngine(endings={"N20160102S0270_image": ["failed"] * 9}))
    daemon.land(*example1()[:3])
    daemon.run(10)
    look = told(daemon, "N20160102S0270_running")
    assert (look["state"], look["reason"]) == ("failed", "failed!")
    daemon.now += 31 * 86400
    retention.prune(daemon.ledger, Retention())
    assert daemon.rows("SELECT * FROM look") == []
