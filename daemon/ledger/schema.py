"""The tables, indexes and views of the ledger, and the steps from each schema to the next."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import peewee as pw

from daemon.ledger import upgrade, views
from pipeline.calibrations import caldb
from pipeline.calibrations.caldb import CalStore


@lru_cache(maxsize=8)
def models(db: pw.Database) -> SimpleNamespace:
    """The ledger's tables, bound to this database only. Times are seconds since the epoch."""

    class Base(pw.Model):
        class Meta:
            database = db
            legacy_table_names = False

    class Frame(Base):
        """One exposure: a data label and its pixels, whatever its files are called."""

        label = pw.TextField()
        data_sha = pw.TextField()
        facts = pw.TextField()
        name = pw.TextField()  # canonical
        ut = pw.DoubleField(null=True, index=True)
        program = pw.TextField(default="")
        tags = pw.TextField()  # JSON list
        descriptors = pw.TextField()  # JSON
        usable = pw.BooleanField()
        role = pw.TextField(default="")  # standard, science, or why it has no recipe

        class Meta:
            indexes = ((("label", "data_sha"), True), (("program", "ut"), False))

    class Observed(Base):
        """What a frame shows, so that nights are found by it: `daemon.ledger.observed`."""

        frame = pw.ForeignKeyField(Frame, primary_key=True)
        object = pw.TextField()
        ut = pw.DoubleField(null=True)

        class Meta:
            indexes = ((("object", "ut"), False),)

    class Content(Base):
        """One delivered content: bytes with a hash, in exactly one state."""

        sha256 = pw.TextField(unique=True)
        state = pw.TextField(index=True)
        reason = pw.TextField()
        first_seen = pw.DoubleField()
        changed = pw.DoubleField()
        kind = pw.TextField(default="")  # of a calibration
        name = pw.TextField()
        facts = pw.TextField(default="")
        tags = pw.TextField(default="[]")
        descriptors = pw.TextField(default="null")
        verified = pw.BooleanField(null=True)
        frame = pw.ForeignKeyField(Frame, null=True, backref="contents")

    class Sighting(Base):
        """A file at a path. It has a state of its own until its content is known."""

        path = pw.BlobField()
        current = pw.BooleanField()  # the latest at its path
        present = pw.BooleanField()  # on disk at the last look
        state = pw.TextField()
        reason = pw.TextField()
        dev = pw.BigIntegerField(null=True)
        ino = pw.TextField(null=True)  # text: 64 bits without sign
        size = pw.BigIntegerField(null=True)
        mtime_ns = pw.BigIntegerField(null=True)
        ctime_ns = pw.BigIntegerField(null=True)
        first_seen = pw.DoubleField()
        last_seen = pw.DoubleField()
        content = pw.ForeignKeyField(Content, null=True, backref="sightings")

        class Meta:
            indexes = ((("path", "current"), False),)

    class FrameGroup(Base):
        """Frames that belong together under one rule. touched: order of the last change, 0 when planned."""

        rule = pw.TextField()
        rank = pw.IntegerField()  # producers before consumers
        key = pw.TextField()
        exposure = pw.DoubleField()
        first_ut = pw.DoubleField()
        last_ut = pw.DoubleField()
        program = pw.TextField(default="")
        pool = pw.TextField(default="")  # groups that may lend each other sky, or be joined
        offers = pw.TextField(default="")  # CalibrationKey of what it makes
        arrivals = pw.IntegerField(default=0)
        last_arrival = pw.DoubleField()
        touched = pw.IntegerField(default=0)
        settled = pw.BooleanField(default=False)
        waiting_since = pw.DoubleField(null=True, index=True)  # on the running clock, hours
        remake = pw.IntegerField(default=0)
        # A job whose product is wanted again; 0: the product is to be withdrawn.
        restore = pw.IntegerField(null=True, index=True)
        reason = pw.TextField(default="")
        better = pw.TextField(default="")
        closed = pw.BooleanField(default=False)  # merged into another, or emptied
        heir = pw.IntegerField(null=True, index=True)  # the group that it was merged into

        class Meta:
            indexes = (
                (("rule", "key", "first_ut"), False),
                (("pool", "first_ut"), False),
                (("offers", "first_ut"), False),
                (("settled", "closed"), False),
                (("touched", "rank"), False),
            )

    class Membership(Base):
        group = pw.ForeignKeyField(FrameGroup, backref="memberships")
        frame = pw.ForeignKeyField(Frame, backref="memberships")

        class Meta:
            primary_key = pw.CompositeKey("group", "frame")
            indexes = ((("frame",), False),)

    class Demand(Base):
        """A calibration key (or a join) that a group can use: what to touch when such a thing appears."""

        group = pw.ForeignKeyField(FrameGroup)
        key = pw.TextField()
        exposure = pw.DoubleField()
        ut = pw.DoubleField()
        chosen = pw.DoubleField(null=True)  # when the chosen one was taken: only a nearer is better

        class Meta:
            indexes = ((("key", "ut"), False), (("group",), False))

    class Job(Base):
        key = pw.TextField(unique=True)
        group = pw.ForeignKeyField(FrameGroup, backref="jobs")
        recipe = pw.TextField()
        version = pw.IntegerField()
        state = pw.TextField()
        reason = pw.TextField(default="")
        priority = pw.IntegerField(default=4)
        ut = pw.DoubleField(default=0.0)  # of its latest input
        spec = pw.TextField(default="")  # JobSpec as JSON; empty while it waits
        makes = pw.TextField(default="")  # Candidate as JSON
        makes_key = pw.TextField(default="")  # its CalibrationKey
        remake = pw.IntegerField(default=0)
        attempts = pw.IntegerField(default=0)
        deaths = pw.IntegerField(default=0)
        interruptions = pw.IntegerField(default=0)
        planned_at = pw.DoubleField()
        changed = pw.DoubleField()
        seconds = pw.DoubleField(null=True)
        peak_mb = pw.DoubleField(null=True)
        error = pw.TextField(default="")

        class Meta:
            indexes = ((("makes_key", "state"), False), (("group", "state"), False))

    # In the order in which jobs are claimed, so that the first of many is at hand.
    Job.add_index(pw.SQL("CREATE INDEX IF NOT EXISTS job_queue ON job (state, priority, ut DESC)"))

    class JobInput(Base):
        job = pw.ForeignKeyField(Job)
        frame = pw.ForeignKeyField(Frame)
        position = pw.IntegerField()
        sha256 = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("job", "position")
            indexes = ((("frame",), False),)

    class JobCalibration(Base):
        job = pw.ForeignKeyField(Job)
        role = pw.TextField()
        ident = pw.TextField(index=True)
        name = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("job", "role", "ident")

    class Dependency(Base):
        """A waiting job and a job that it waits for."""

        job = pw.ForeignKeyField(Job)
        producer = pw.ForeignKeyField(Job)

        class Meta:
            primary_key = pw.CompositeKey("job", "producer")
            indexes = ((("producer",), False),)

    class Attempt(Base):
        job = pw.ForeignKeyField(Job)
        n = pw.IntegerField()
        started = pw.DoubleField()
        finished = pw.DoubleField(null=True)
        outcome = pw.TextField(default="")  # done, failed, died ...; empty while it runs
        error = pw.TextField(default="")
        seconds = pw.DoubleField(null=True)

        class Meta:
            indexes = ((("job", "n"), True),)

    class Product(Base):
        """One published product; `path` is where it lies now."""

        job = pw.ForeignKeyField(Job, unique=True)
        group = pw.ForeignKeyField(FrameGroup)
        name = pw.TextField()
        night = pw.TextField(index=True)
        path = pw.BlobField()
        sha256 = pw.TextField()
        version = pw.IntegerField()  # how many-th of its group
        current = pw.BooleanField()
        published = pw.DoubleField()
        notes = pw.TextField(default="[]")
        quality = pw.TextField(default="{}")

        class Meta:
            indexes = ((("group", "current"), False), (("path",), False), (("name", "night"), False))

    class Intent(Base):
        """A publication that has begun: recovery finishes it from here."""

        job = pw.ForeignKeyField(Job, primary_key=True)
        attempt = pw.IntegerField()
        plan = pw.TextField()  # JSON

    class Look(Base):
        """A first look or running stack; its number in logs is `FIRST_LOOK_NUMBER` more than its id."""

        group = pw.ForeignKeyField(FrameGroup)
        kind = pw.TextField()
        name = pw.TextField(index=True)
        night = pw.TextField()
        path = pw.BlobField()  # where it is seen until the product is there
        state = pw.TextField()  # running, or its ending
        frames = pw.TextField()  # JSON: names
        calibrations = pw.TextField()  # JSON: role -> name
        notes = pw.TextField()  # JSON
        quality = pw.TextField()  # JSON
        began = pw.DoubleField(index=True)
        ended = pw.DoubleField(null=True)
        seconds = pw.DoubleField(null=True)
        error = pw.TextField()
        job_id = pw.IntegerField(null=True)  # that has become the product

    class Measure(Base):
        """A number about a product, a look or a frame: `daemon.ledger.measures`."""

        subject = pw.TextField()  # product, look or frame
        number = pw.IntegerField()  # the row of that table
        name = pw.TextField()
        value = pw.DoubleField()
        error = pw.DoubleField(null=True)
        unit = pw.TextField()
        key = pw.TextField()  # the setting: camera and filter, or the key of a master
        at = pw.DoubleField()  # of the exposure

        class Meta:
            primary_key = pw.CompositeKey("subject", "number", "name")
            indexes = ((("name", "key", "at"), False), (("name", "at"), False))

    class Decision(Base):
        """What a person decided, once a request and thing; `files` that are to move are in `moves`."""

        request = pw.TextField()
        subject = pw.TextField(index=True)
        action = pw.TextField()
        said = pw.TextField()
        reason = pw.TextField(default="")
        user = pw.TextField()
        at = pw.DoubleField()
        outcome = pw.TextField(default="")
        moves = pw.TextField(default="[]")  # JSON: [from, to, hash]
        more = pw.TextField(default="{}")  # JSON, for rebuild
        written = pw.BooleanField(default=False, index=True)  # to the decisions file

        class Meta:
            indexes = ((("request", "subject"), True),)

    # What the daemon holds back itself, at hand whenever a calibration is chosen.
    Decision.add_index(
        pw.SQL("CREATE INDEX IF NOT EXISTS decision_held ON decision (action) WHERE action = 'hold'")
    )

    class Search(Base):
        """The search for the bad frame of a failed job: `daemon.ledger.searches`."""

        job = pw.ForeignKeyField(Job, primary_key=True)
        group = pw.ForeignKeyField(FrameGroup)
        frames = pw.TextField()  # JSON: ids of all inputs
        state = pw.TextField()  # JSON
        tries = pw.IntegerField(default=0)
        outcome = pw.TextField(default="", index=True)  # empty while it goes on

    class Removal(Base):
        """A superseded product whose file is still to be unlinked."""

        path = pw.BlobField(unique=True)

    class Event(Base):
        at = pw.DoubleField()
        event = pw.TextField()
        job = pw.IntegerField(null=True, index=True)
        fields = pw.TextField()

    # When the daemon was there, and what it told of needs: at hand among all that has happened.
    seldom = {"daemon": "IN ('daemon_started', 'daemon_stopped')", "need": "= 'calibration_need'"}
    for name, these in seldom.items():
        index = f"CREATE INDEX IF NOT EXISTS event_of_{name} ON event (at) WHERE event {these}"
        Event.add_index(pw.SQL(index))

    class Meta_(Base):
        name = pw.TextField(primary_key=True)
        value = pw.DoubleField()

        class Meta:
            table_name = "meta"

    tables = {
        k: v for k, v in locals().items() if isinstance(v, type) and issubclass(v, Base) and v is not Base
    }
    return SimpleNamespace(**tables)


def every_table() -> list[Any]:
    """The tables as they are declared, of a database that is nowhere; with those of the calibration store."""
    nowhere = pw.SqliteDatabase(":memory:")
    return [*vars(models(nowhere)).values(), *vars(caldb.models(nowhere)).values()]


def create_all(db: Any) -> CalStore:
    """Make what is not there yet, and of an older schema what is now, in one transaction."""
    with db.atomic("IMMEDIATE"):
        cals = CalStore(db)
        tables = models(db)
        db.create_tables(list(vars(tables).values()), safe=True)
        upgrade.upgrade(db)
        views.make(db)
    return cals
