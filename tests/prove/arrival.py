"""Whatever the order of arrival, restarts, crashes, copies, edits and clocks: the same products in the end.

A state machine of hypothesis plays the observatory on one side and a small model on the other. The model is
what lies in the drop folder in the end and what people have decided: given at once to a daemon that knows
nothing, it must lead to the same products, bit for bit.
"""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daemon.ledger.store import connect_readonly
from daemon.model.states import FileState
from daemon.people import requests
from tests.prove.counts import Counts
from tests.prove.crash import changed_their_mind, late_and_rewritten, night_lands, place
from tests.prove.world import GRACE, World, problems, products_of, raw, small_night, torn

LONGEST_WAIT = 40 * 3600.0  # s; twelve hours for more frames, and then for each calibration
DAYS = 86400.0
FRAMES = st.sampled_from(sorted(small_night()))
COUNTS: Counts | None = None  # of the run that is going on


class Observatory(RuleBasedStateMachine):
    """drop, daemon and clock; `files` is the model: {path in the drop folder: bytes}."""

    def __init__(self):
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.base = Path(tempfile.mkdtemp(dir=memory)).resolve()
        self.world = World(self.base / "live").start()
        self.night, self.files, self.gone, self.parts = small_night(), {}, {}, {}
        self.decided = 0

    # -- what happens to files ----------------------------------------------------------------

    def write(self, name: str, content: bytes, *, whole=True):
        path = self.world.drop / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        if whole:
            self.files[name] = content
            self.parts.pop(name, None)
            self.gone.pop(name, None)

    @rule(name=FRAMES)
    def lands(self, name):
        self.write(name, self.night[name])

    @rule(names=st.lists(FRAMES, max_size=16))
    def many_land(self, names):
        for name in names:
            self.write(name, self.night[name])

    @rule(name=FRAMES, share=st.floats(0.0, 0.99))
    def a_part_lands(self, name, share):
        if name not in self.files:
            content = self.night[name]
            self.write(name, content[: int(len(content) * share)], whole=False)
            self.parts[name] = content

    @precondition(lambda self: self.parts)
    @rule()
    def the_rest_lands(self):
        name, content = sorted(self.parts.items())[0]
        self.write(name, content)

    @rule(name=FRAMES, folder=st.sampled_from(["more", "again"]))
    def a_copy_lands(self, name, folder):
        """The same bytes at another place, perhaps before the file itself. (Under a name that is none of
        Gemini's it would give its name to what is made before the right one is known.)"""
        self.write(f"{folder}/{name}", self.files.get(name, self.night[name]))

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def is_moved(self, data):
        name = data.draw(st.sampled_from(sorted(self.files)))
        if not name.startswith("moved/"):
            (self.world.drop / "moved").mkdir(exist_ok=True)
            target = f"moved/{os.path.basename(name)}"
            os.replace(self.world.drop / name, self.world.drop / target)
            self.files[target] = self.files.pop(name)
            self.gone.pop(target, None)

    @rule(name=FRAMES, again=st.booleans())
    def is_rewritten(self, name, again):
        """Other pixels at the same place, as many bytes, with the old time."""
        if name in self.files:
            path = self.world.drop / name
            before = path.stat()
            old = self.files[name].decode()
            new = old.replace('"pixels": "N', '"pixels": "M') if again else old.replace('"M', '"N')
            self.write(name, new.encode())
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(
        name=FRAMES, card=st.sampled_from(["comment", "qa", "object"]), word=st.sampled_from(["Fail", "Pass"])
    )
    def header_is_edited(self, name, card, word):
        if name in self.files:
            kind, number, seconds, more = _facts(self.files[name])
            more = {**more, card: word}
            self.write(name, raw(kind, number, seconds, **more)[1])

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def is_deleted(self, data):
        name = data.draw(st.sampled_from(sorted(self.files)))
        (self.world.drop / name).unlink()
        self.gone[name] = self.files.pop(name)

    # -- what people do -----------------------------------------------------------------------

    @precondition(lambda self: self.files)
    @rule(data=st.data(), action=st.sampled_from(["reject", "accept"]))
    def is_decided(self, data, action):
        name = data.draw(st.sampled_from(sorted(self.files)))
        target = str(self.world.drop / name)
        requests.submit(self.world.state, {"action": action, "target": target, "reason": "because"})

    # -- what happens to the daemon -----------------------------------------------------------

    @rule(seconds=st.sampled_from([20.0, 20.0, 60.0, 200.0, 600.0, 5000.0]))
    def time_passes(self, seconds):
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.tick(20.0 if seconds < 1000 else 200.0)

    @rule(clean=st.booleans(), busy=st.booleans())
    def the_daemon_restarts(self, clean, busy):
        if busy:
            self.world.engine.held = True  # jobs are running when it ends
            self.world.tick(200.0)
        if clean:
            self.world.dispatcher.stop(1.0)
        now, wall = self.world.now, self.world.wall
        self.world.close()
        if not clean:
            assert torn(self.world.folder) == []
        self.world = World(self.base / "live", wall=wall)
        self.world.now = now
        self.world.start()

    @rule(step=st.sampled_from([-3600.0, DAYS, -1.6e9, 3 * DAYS, -7 * DAYS]))
    def the_clock_steps(self, step):
        self.world.wall += step

    # -- what must be so ----------------------------------------------------------------------

    @invariant()
    def nothing_is_done_twice(self):
        with self.world.ledger.read() as db:
            row = db.execute("SELECT COALESCE(MAX(runs), 0) FROM accounting").fetchone()
            states = {r[0] for r in db.execute("SELECT state FROM content")}
        assert row[0] <= 1
        assert states <= set(FileState)

    def teardown(self):
        try:
            self.the_end()
        finally:
            self.world.close()
            shutil.rmtree(self.base, ignore_errors=True)

    def the_end(self):
        """What was cut short is completed, what is gone comes back, all the waits pass."""
        for name, content in sorted({**self.parts, **self.gone}.items()):
            self.write(name, content)
        self.world.engine.held = False
        end = self.world.now + LONGEST_WAIT + GRACE
        while self.world.now < end:
            self.world.tick(600.0)
        self.world.until_quiet()
        folder = self.world.folder
        at_once = self.all_at_once()
        bad = problems(folder, products_of(at_once))
        assert not any(bad.values()), bad
        if COUNTS is not None:
            COUNTS.tried += 1
            COUNTS.more["products"] = COUNTS.more.get("products", 0) + len(products_of(folder))

    def all_at_once(self) -> Path:
        """The drop folder as it is now and the decisions of people, for a daemon that knows nothing."""
        folder = self.base / "at once"
        shutil.copytree(self.world.drop, folder / "drop")
        world = World(folder)
        with contextlib.closing(connect_readonly(self.world.state / "nirid.db")) as db:
            decisions = [dict(row) for row in db.execute("SELECT * FROM decision ORDER BY id")]
        world.ledger.write(lambda tx: [tx.insert("decision", **{**d, "moves": "[]"}) for d in decisions])
        world.start()
        for _ in range(3):
            world.at_once()
        world.close()
        return folder


def _facts(content: bytes):
    import json

    from tests.prove.world import END

    values = json.loads(content[: -len(END)])
    more = {**values["changes"], **{k: values[k] for k in ("day", "pixels", "comment", "qa")}}
    return values["kind"], values["number"], values["seconds"], more


def arrivals(nights: int, *, part=(0, 1), seed=0, steps=40) -> Counts:
    """So many nights, each with a story of its own."""
    global COUNTS
    COUNTS = counts = Counts()
    began = time.monotonic()
    chosen = settings(
        max_examples=max(1, nights // part[1]), stateful_step_count=steps, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(seeded(seed * part[1] + part[0])(Observatory), settings=chosen)
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        counts.take(f"seed {seed}, part {part}", {"lost": [f"{type(error).__name__}: {error}\n{notes}"]})
    counts.seconds = time.monotonic() - began
    COUNTS = None
    return counts


def clocks(stories: int, *, part=(0, 1), seed=0) -> Counts:
    """The same story, with the clock stepped at every moment: an hour back, a day on, to 1970."""
    counts, began = Counts(), time.monotonic()
    with place() as base:
        wanted = _told(base / "wanted", None, 0.0)
        steps = [-3600.0, DAYS, -1.6e9]
        moments = max(1, stories // len(steps))
        for number in range(part[0], moments, part[1]):
            for step in steps:
                folder = base / "world"
                made = _told(folder, number * 90 // moments, step)
                bad = problems(folder)
                if made != wanted:
                    bad["lost"].append("other products than without the step")
                counts.take(f"the clock steps by {step:g} s at moment {number}", bad)
                shutil.rmtree(folder)
    counts.seconds = time.monotonic() - began
    return counts


def _told(folder: Path, moment, step: float) -> dict[str, bytes]:
    """Tell the story; the names of the products, and what is in them but for the paths."""
    (folder / "drop").mkdir(parents=True)
    world = World(folder).start()
    ticks = 0
    for chapter in (night_lands, late_and_rewritten, changed_their_mind):
        chapter(folder)
        for _ in range(30):
            if ticks == moment:
                world.wall += step
            ticks += 1
            world.tick()
    world.until_quiet()
    world.close()
    return products_of(folder)
