"""A night without pixels: file records as ingest makes them, an engine that "reduces" by writing a small
file, and a daemon around it whose clock the test moves by hand."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.ledger import files, questions
from daemon.ledger.store import Ledger
from daemon.loop import MainLoop
from daemon.model.files import FileRecord, Signature
from daemon.model.groups import Setting
from daemon.model.jobs import QUALITY, Outcome
from daemon.model.rules import DEFAULT_RULES
from daemon.people.requests import Requests, submit
from daemon.work.dispatch import Dispatcher
from daemon.work.previews import Looks
from pipeline import levels
from pipeline.association import CalKind
from pipeline.headers.descriptors import Descriptors
from pipeline.params import NoParams, bounded
from pipeline.primitive import Primitive, Recipe

NIGHT = datetime(2016, 1, 2, 5, tzinfo=UTC)
BPMS = frozenset({CalKind.STATIC_BPM, CalKind.MADE_BPM})


@dataclass(frozen=True)
class JudgeParams:
    accept: tuple[str, ...] = bounded((), doc="frames to use whatever is found of them")


_judge = Primitive("judgeFrames", JudgeParams, lambda frames, params, cals: frames, "")()
_first_frame = Primitive("removeFirstFrame", NoParams, lambda frames, params, cals: frames, "")()
RECIPES = {
    r.name: r
    for r in (
        Recipe("makeProcessedDark", 1, "_dark", (), makes=CalKind.DARK),
        Recipe("makeProcessedFlat", 1, "_flat", (), makes=CalKind.FLAT, wants=BPMS),
        Recipe("makeProcessedBPM", 1, "_bpm", (), makes=CalKind.MADE_BPM),
        Recipe(
            "reduce",
            1,
            "_image",
            (_first_frame, _judge),
            needs=frozenset({CalKind.FLAT}),
            prefers=frozenset({CalKind.DARK}),
            wants=BPMS | {CalKind.ZERO_POINT},
        ),
        Recipe(
            "firstLook",
            1,
            "_firstlook",
            (),
            wants=BPMS | {CalKind.DARK, CalKind.FLAT},
        ),
        Recipe(
            "makeSkyFlat",
            1,
            "_skyflat",
            (_first_frame,),
            makes=CalKind.FLAT,
            prefers=frozenset({CalKind.DARK}),
            wants=BPMS,
        ),
    )
}
COMMON = {"NIRI", "GEMINI", "NORTH", "RAW", "UNPREPARED"}
TAGS = {
    "science": {"IMAGE"},
    "standard": {"IMAGE"},
    "dark": {"DARK", "CAL"},
    "lampon": {"FLAT", "CAL", "GCALFLAT", "LAMPON", "IMAGE"},
    "lampoff": {"FLAT", "CAL", "GCALFLAT", "LAMPOFF", "IMAGE"},
}


def setting(products="products", rules=DEFAULT_RULES, **changes) -> Setting:
    return Setting({r.title: r for r in rules}, RECIPES, products=str(products), **changes)


def describe(kind, number, seconds, **changes) -> Descriptors:
    ut = NIGHT + timedelta(seconds=seconds)
    flat, dark = kind.startswith("lamp"), kind == "dark"
    values = {
        "data_label": f"GN-2015B-Q-1-1-{number}",
        "observation_id": {"science": "GN-2015B-Q-1-1", "standard": "GN-2015B-Q-1-2"}.get(kind, "GN-CAL-1"),
        "program_id": "GN-CAL20160102" if flat or dark else "GN-2015B-Q-1",
        "observation_class": {"science": "science", "standard": "partnerCal"}.get(kind, "dayCal"),
        "observation_type": "DARK" if dark else "FLAT" if flat else "OBJECT",
        "object": {"science": "SN2014J", "standard": "FS 17", "dark": "Dark"}.get(kind, "GCALflat"),
        "ut_datetime": ut,
        "exposure_time": 20.002,
        "coadds": 2,
        "read_mode": "Low Background",
        "well_depth": "Shallow",
        "filter_name": "blank" if dark else "Kprime_G0206",
        "camera": "f6",
        "focal_plane_mask": "f6-cam_G5208",
        "shape": (1024, 1024),
        "data_section": "[1:1024,1:1024]",
        "ra": 148.0 + (number % 2) * 0.1,
        "dec": 10.0,
        "pixel_scale": 0.1171,
        **({"gcal_lamp_raw": "IRhigh", "gcal_filter": "ND2.0"} if flat else {}),
        **({"gcal_lamp": "IRhigh" if kind == "lampon" else "Off"} if flat else {}),
        **changes,
    }
    return Descriptors(**{"ut_end": ut + timedelta(seconds=values["exposure_time"] or 0), **values})


def sha(text) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def frame(kind, number, seconds, *, day="20160102", folder="/drop", **changes) -> FileRecord:
    """A raw frame as ingest reports it."""
    descriptors = describe(kind, number, seconds, **changes)
    name = f"N{day}S{number:04d}.fits"
    return FileRecord(
        path=f"{folder}/{name}",
        state="ready",
        reason="a raw frame that can be used",
        signature=Signature(1, number, 100, number, number),
        file_sha=sha(f"file {name} {sorted(changes.items())}"),
        data_sha=sha(f"data {name}"),
        facts=sha(json.dumps(descriptors.to_json(), sort_keys=True)),
        data_label=descriptors.data_label,
        tags=frozenset(COMMON | TAGS[kind]),
        descriptors=descriptors,
    )


def static_bpm() -> FileRecord:
    made = replace(
        describe("science", 1, 0), ut_datetime=datetime(2001, 3, 17, tzinfo=UTC), observation_type="BPM"
    )
    return FileRecord(
        path="/drop/bpm_20010317_niri_niri_11_full_1amp.fits",
        state="calibration",
        reason="a static bpm from outside",
        signature=Signature(1, 9999, 100, 1, 1),
        file_sha=sha("bpm"),
        data_sha=sha("bpm data"),
        facts=sha("bpm facts"),
        tags=frozenset({"BPM", "CAL", "PROCESSED", "NIRI"}),
        descriptors=made,
        kind=CalKind.STATIC_BPM.value,
    )


def example1() -> list[FileRecord]:
    """The tutorial's night: 10 science, 5 standard, 10 + 10 flats, 10 darks, 10 short darks a day later."""
    night = [frame("science", n, 30 * (n - 270)) for n in range(270, 280)]
    night += [
        frame("standard", n, 900 + 10 * (n - 295), exposure_time=3.0, coadds=1) for n in range(295, 300)
    ]
    lamps = {"exposure_time": 42.0, "coadds": 1}
    night += [frame("lampoff", n, 7200 + 60 * (n - 363), **lamps) for n in range(363, 373)]
    night += [frame("lampon", n, 7800 + 60 * (n - 373), **lamps) for n in range(373, 383)]
    night += [frame("dark", n, 20000 + 30 * (n - 423)) for n in range(423, 433)]
    short = {"exposure_time": 1.0, "coadds": 1, "day": "20160103"}
    night += [frame("dark", n, 90000 + 5 * (n - 463), **short) for n in range(463, 473)]
    return night


def busy_night() -> list[FileRecord]:
    """The same with a mask, a second filter, more darks, and exposures that scatter about the tolerance."""
    night = [*example1(), static_bpm()]
    other = {"observation_id": "GN-2015B-Q-1-9", "filter_name": "J_G0202"}
    night += [frame("science", n, 3000 + 30 * (n - 500), **other) for n in range(500, 506)]
    lamps = {"exposure_time": 10.0, "coadds": 1, "filter_name": "J_G0202"}
    night += [frame("lampoff", n, 9000 + 60 * (n - 600), **lamps) for n in range(600, 604)]
    night += [frame("lampon", n, 9500 + 60 * (n - 610), **lamps) for n in range(610, 614)]
    for n in range(700, 708):
        night.append(frame("dark", n, -3000 + 30 * (n - 700), exposure_time=1.0 + 0.004 * (n % 4), coadds=1))
    night += [frame("dark", n, 40000 + 30 * (n - 800)) for n in range(800, 804)]
    return night


def many_nights(count=7, days=1) -> list[FileRecord]:
    """Small nights of one configuration, so many days apart; four of five lack one kind of calibration."""
    nights = []
    for k in range(count):
        day = f"{NIGHT + timedelta(days=days * k):%Y%m%d}"
        for place, (kind, frames, cadence, more) in enumerate(
            (
                ("science", 5, 30, {}),
                ("standard", 4, 10, {"exposure_time": 3.0, "coadds": 1}),
                ("lampoff", 4, 60, {"exposure_time": 42.0, "coadds": 1}),
                ("lampon", 4, 60, {"exposure_time": 42.0, "coadds": 1}),
                ("dark", 10, 30, {}),
                ("dark", 10, 5, {"exposure_time": 1.0, "coadds": 1}),
            )
        ):
            if place and place == k % 5 + 1 and k % 5:
                continue
            first = 100 * k + 15 * place + 1
            start = 86400 * days * k + 4000 * place
            nights += [frame(kind, first + n, start + cadence * n, day=day, **more) for n in range(frames)]
    return nights


FINAL = {
    "N20160102S0423_dark",
    "N20160102S0373_bpm",
    "N20160102S0373_flat",
    "N20160102S0296_image",
    "N20160102S0271_image",
}


class FakeEngine:
    """Writes what a product would depend on. `endings`: job name -> endings of its first attempts.

    Every image has a zero point, but for those of `cloudy`.
    """

    cloudy = ()

    def __init__(self, workers=2, endings=None):
        self.workers, self.running, self.ran = workers, [], []
        self.endings = {name: list(values) for name, values in (endings or {}).items()}
        self.held = False
        self.cancelled = []

    def free(self):
        return self.workers - len(self.running)

    def submit(self, job_id, attempt, spec):
        self.running.append((job_id, attempt, spec))

    def busy(self):
        return len(self.running)

    def cancel(self, job_id):
        self.cancelled.append(job_id)

    def waitables(self):
        return []

    def poll(self):
        if self.held:
            return []
        done, self.running = self.running, []
        return [self.run(*job) for job in done]

    def stop(self, timeout):
        done, self.running = self.running, []
        return [Outcome(job, attempt, "stopped", 0.1) for job, attempt, _ in done]

    def run(self, job_id, attempt, spec):
        self.ran.append(spec)
        if self.endings.get(spec.name):
            ending = self.endings[spec.name].pop(0)
            return Outcome(job_id, attempt, ending, 0.1, error=f"{ending}!")
        return Outcome(job_id, attempt, "done", 0.1, result=self.stage(spec))

    def stage(self, spec):
        content = json.dumps(
            {
                "recipe": [spec.recipe, spec.recipe_version, spec.key, spec.group, spec.time_stamp],
                "inputs": [i.name for i in spec.inputs],
                "cals": [(c.role, c.sha, c.name) for c in spec.calibrations],
                "parameters": sorted(spec.parameters.items()),
                "notes": spec.notes,
            }
        ).encode()
        cards = levels.cards(spec.levels, RECIPES[spec.recipe].takes)
        told = {card: cards[card][0] for card in QUALITY if card in cards}
        staged = Path(f"{spec.staging}.fits")
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        staged.with_suffix(".png").write_bytes(b"png")
        return {
            "fits": str(staged),
            "png": str(staged.with_suffix(".png")),
            "sha256": hashlib.sha256(content).hexdigest(),
            "name": spec.name,
            "quality": ({} if spec.name in self.cloudy else {"MAGZPT": 26.3}) | told,
            "notes": list(spec.notes),
            "seconds": 0.1,
            "peak_mb": 1.0,
        }


class Daemon:
    """Ledger, dispatcher and main loop on a clock that stands still until the test moves it."""

    def __init__(
        self, folder: Path, engine=None, rules=DEFAULT_RULES, overrides=None, looks=False, **changes
    ):
        self.folder, self.now = folder, 1000.0
        self.products = folder / "products"
        self.events = []
        self.ledger = Ledger(
            folder / "nirid.db",
            log=self.log,
            clock=lambda: 1.6e9 + self.now,
        )
        self.engine = engine or FakeEngine()
        self.setting = setting(self.products, rules, **changes)
        self.dispatcher = Dispatcher(
            self.ledger,
            self.engine,
            clock=lambda: self.now,
            policy=self.setting.policy,
            setting=self.setting,
            looks=Looks(self.products, self.setting, clock=lambda: self.now) if looks else None,
        )
        more = {"overrides": overrides} if overrides else {}
        self.requests = Requests(
            self.ledger, self.setting, overrides or (lambda r, d: {}), folder / "state", self.products
        )
        self.main_loop = MainLoop(
            self.ledger,
            self.dispatcher,
            self.setting,
            clock=lambda: self.now,
            requests=self.requests,
            **more,
        )

    def log(self, event, **fields):
        self.events.append((event, fields))

    def land(self, *records):
        for record in records:
            self.ledger.write(lambda tx, r=record: files.record(tx, r, self.setting))

    def run(self, seconds=0.0, step=10.0):
        """Let time pass, ticking."""
        end = self.now + seconds
        while True:
            for _ in range(50):
                before = len(self.engine.ran), len(self.events)
                self.main_loop.tick(self.now)
                if (len(self.engine.ran), len(self.events)) == before and not self.engine.busy():
                    break
            if self.now >= end:
                return
            self.now = min(end, self.now + step)

    def decide(self, action, target="", **more):
        """As a person's command does; what it leads to comes with the next tick."""
        return submit(self.folder / "state", {"action": action, "target": target, **more})

    def until_idle(self):
        self.main_loop.until_idle(lambda: 0)

    def ask(self, question, *args, **more):
        with self.ledger.read() as db:
            return question(db, *args, **more)

    def rows(self, sql, *values):
        with self.ledger.read() as db:
            return [dict(row) for row in db.execute(sql, values)]

    def current(self):
        """{name: content on disk} of the current products."""
        return {p["name"]: Path(p["path"]).read_text() for p in self.ask(questions.products)}

    def close(self):
        self.main_loop.close()
        self.ledger.close()
