"""What can happen to the bytes of a raw file: any verdict, never a crash, in bounded time and memory.

A file that was cut short is never taken for whole, whatever it is packed in; one with checksums is never
taken with a flipped bit. What is taken for a frame, however odd its header has become, goes through
grouping and planning without an exception.
"""

import bz2
import gzip
import multiprocessing
import random
import resource
import tempfile
import time
import zlib
from pathlib import Path

from astropy.io import fits
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from daemon.arrivals import read
from tests.fitsfiles import DARK, frame_bytes, header_bytes, noise, real_file
from tests.night import Daemon
from tests.prove.counts import Counts

SLOW = 3.0  # s of work for one file
MEMORY_MB = 120  # that reading all the files may add
TAKEN = ("ready", "calibration", "excluded")


def originals(folder: Path) -> dict[str, bytes]:
    """A frame as it is, with checksums, and packed in three ways."""
    plain = frame_bytes(pixels=noise(32, 32))
    (folder / "plain.fits").write_bytes(plain)
    with fits.open(folder / "plain.fits") as hdus:
        hdus.writeto(folder / "sums.fits", checksum=True)
        tiled = fits.HDUList([hdus[0].copy(), fits.CompImageHDU(hdus[1].data, hdus[1].header)])
        tiled.writeto(folder / "tiled.fits.fz", checksum=True)
    sums = (folder / "sums.fits").read_bytes()
    made = {
        "plain": plain,
        "sums": sums,
        "gzip": gzip.compress(sums, mtime=0),
        "bzip2": bz2.compress(sums),
        "tiled": (folder / "tiled.fits.fz").read_bytes(),
    }
    shared = Path(__file__).parents[3] / "shared" / "realdata" / "headers" / "raw"
    for text in sorted(shared.glob("*.header"))[::6]:  # none where that folder is not
        made[f"real {text.stem}"] = real_file(text.read_text(encoding="latin-1"))
    return made


class Judge:
    """Has files read, and keeps what was wrong."""

    def __init__(self, folder: Path, counts: Counts):
        self.path, self.counts, self.slowest, self.taken = folder / "N20160102S0001.fits", counts, 0.0, []
        self.grew = 0.0  # MB
        self.sums: dict[str, int] = {}

    def __call__(self, what: str, content: bytes, *, never: tuple[str, ...] = (), patience="overdue"):
        self.path.write_bytes(content)
        began, peak = time.thread_time(), _peak_mb()
        bad: dict[str, list[str]] = {}
        state = "?"
        try:
            record = read.ingest(str(self.path), patience=patience)
            state = record.state
            if state in never:
                bad["torn"] = [f"was found {state}: {record.reason}"]
            if not record.reason:
                bad["lost"] = [f"was found {state} without a reason"]
            if state == "ready":
                self.taken.append(record)
        except OSError as error:
            bad["lost"] = [f"blamed on the disk: {error}"]
        except Exception as error:
            bad["lost"] = [f"{type(error).__name__}: {error}"]
        took = time.thread_time() - began
        self.grew += _peak_mb() - peak
        self.slowest = max(self.slowest, took)
        if took > SLOW:
            bad["hung"] = [f"took {took:.1f} s"]
        self.sums[state] = self.sums.get(state, 0) + 1
        self.counts.take(what, bad)


def damage(files: int, *, part=(0, 1), seed=0) -> Counts:
    """files : about so many damaged files are tried"""
    counts, began = Counts(), time.monotonic()
    chance = random.Random(seed * part[1] + part[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = Judge(folder, counts)
        made = originals(folder)
        for what, content in made.items():
            judge(f"{what}, whole", content)
        if counts.red or judge.sums.get("ready", 0) < 5:
            counts.take("the files to be damaged", {"lost": [f"are not good themselves: {judge.sums}"]})
        share = files // part[1] // 5
        _truncate(judge, made, chance, share)
        _flip(judge, made, chance, share)
        _scramble(judge, made, chance, share)
        _mutate_headers(judge, share * 2, seed * part[1] + part[0])
        if part[0] == 0:
            _bombs(judge, 40 if files > 1000 else 8)
        _plan(counts, judge.taken, folder)
        if judge.grew > MEMORY_MB:
            counts.take("all of them", {"hung": [f"memory has grown by {judge.grew:.0f} MB"]})
    counts.more |= judge.sums | {"=slowest, s": round(judge.slowest, 3), "=memory, MB": round(judge.grew)}
    counts.seconds = time.monotonic() - began
    return counts


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _truncate(judge, made, chance, tries):
    for _ in range(tries):
        what, content = chance.choice(list(made.items()))
        end = chance.choice([chance.randrange(len(content)), len(content) - chance.randrange(1, 200)])
        judge(f"{what}, cut at {end} of {len(content)}", content[:end], never=TAKEN)


def _flip(judge, made, chance, tries):
    for _ in range(tries):
        what, content = chance.choice(list(made.items()))
        damaged = bytearray(content)
        where = chance.randrange(len(damaged))
        damaged[where] ^= 1 << chance.randrange(8)
        carries = what in ("sums",) or (what == "bzip2" and where < len(content) - 8)
        start = where - where % 80  # without its name no card tells of a checksum
        carries &= content[start : start + 8] not in (b"CHECKSUM", b"DATASUM ") or where - start >= 8
        judge(f"{what}, bit flipped at {where}", bytes(damaged), never=TAKEN if carries else ())


def _scramble(judge, made, chance, tries):
    """Pages of zeros or noise, blocks lost or put twice, something appended."""
    for _ in range(tries):
        what, content = chance.choice(list(made.items()))
        damaged = bytearray(content)
        start = chance.randrange(len(damaged))
        length = chance.choice([1, 80, 512, 2880, 4096])
        how = chance.randrange(5)
        if how == 0:
            damaged[start : start + length] = bytes(len(damaged[start : start + length]))
        elif how == 1:
            damaged[start : start + length] = chance.randbytes(len(damaged[start : start + length]))
        elif how == 2:
            del damaged[start : start + length]
        elif how == 3:
            damaged[start:start] = damaged[start : start + length]
        else:
            damaged += chance.randbytes(length)
        judge(f"{what}, scrambled ({how}) at {start}", bytes(damaged))


CARD = st.one_of(
    st.sampled_from(
        [
            -(2**63), -1, 0, 1, 7, 2**31, 10**30, "1e400", float("nan"), float("inf"), True, False,
            "NaN", "T", "'; DROP TABLE content; --", "<script>", "../../etc", "\x1b[2J", "", "M31: 0.5",
            "%s%n{0}", "a" * 68,
        ]
    ),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(st.characters(min_codepoint=0, max_codepoint=255, exclude_characters="'"), max_size=60),
    st.binary(min_size=80, max_size=80),
)  # fmt: skip
ODD_KEYS = (
    "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "EXTEND", "DATASUM", "CHECKSUM", "ZIMAGE",
    "SIMPLE", "XTENSION", "EXTNAME", "TFIELDS", "BSCALE", "BZERO", "END", "CONTINUE", "HIERARCH",
)  # fmt: skip


def _mutate_headers(judge, tries, number):
    """Any cards with any values, or their bytes; some cards twice or not at all."""
    cards = st.dictionaries(st.sampled_from((*DARK, *ODD_KEYS)), CARD, min_size=1, max_size=4)

    @seed(number)
    @settings(
        max_examples=max(1, tries), database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cards, cards, st.sets(st.sampled_from(sorted(DARK)), max_size=2), st.integers(0, 3))
    def mutated(primary, extension, missing, which):
        head = {**{k: v for k, v in DARK.items() if k not in missing}, **_cards(primary)}
        ext = _cards(extension) if which else {}
        judge(f"header with {primary} and {ext}, without {missing}", frame_bytes(head, noise(32, 32), ext))

    mutated()


def _cards(values: dict) -> dict:
    """Texts with bytes above ASCII as whole cards, since a header can hold them all the same."""
    return {
        k: f"{k:<8}= '{v}'".encode("latin-1")[:80] if isinstance(v, str) and not v.isascii() else v
        for k, v in values.items()
    }


def _bombs(judge, pieces):
    """Little that grows to much (so many pieces of 16 MB), and headers that ask for much."""
    head = frame_bytes(pixels=noise(32, 32))
    bomb = _inflated(zlib.compressobj(9, wbits=31), head, pieces)
    judge("gzip that grows", bomb, never=TAKEN)
    judge("gzip in gzip", gzip.compress(bomb), never=TAKEN)
    judge("bzip2 that grows", _inflated(bz2.BZ2Compressor(1), head, pieces), never=TAKEN)
    huge = {"SIMPLE": True, "BITPIX": -64, "NAXIS": 2, "NAXIS1": 2**31 - 1, "NAXIS2": 2**31 - 1, **DARK}
    judge("an image of 2^62 pixels", header_bytes(huge), never=TAKEN)
    many = {**DARK, **{f"KEY{i}": i for i in range(20_000)}}
    judge("20000 cards", frame_bytes(many, noise(32, 32)))
    judge(
        "a header without an end", header_bytes({"SIMPLE": True}, end=False) + b" " * (4 << 20), never=TAKEN
    )
    judge("2000 extensions", head + (head[head.index(b"XTENSION") // 2880 * 2880 :]) * 2000, never=TAKEN)


def _inflated(packer, head: bytes, pieces: int) -> bytes:
    """A file and many zeros, packed without ever having them in memory."""
    return b"".join(
        [packer.compress(head), *(packer.compress(bytes(1 << 24)) for _ in range(pieces)), packer.flush()]
    )


def _plan(counts: Counts, records: list, folder: Path) -> None:
    """What was taken goes on: into the ledger, groups, jobs, all under one roof, without an exception."""
    daemon = Daemon(folder)
    try:
        for number, record in enumerate(records):
            copy = record.__class__(
                **{f: getattr(record, f) for f in record.__slots__} | {"path": f"/drop/{number}.fits"}
            )
            try:
                daemon.land(copy)
                if number % 50 == 49:
                    daemon.run(100, step=100)
            except Exception as error:
                cards = copy.descriptors
                counts.take(f"planning of {cards}", {"lost": [f"{type(error).__name__}: {error}"]})
        daemon.run(600, step=100)
        counts.more["taken and planned"] = len(records)
    finally:
        daemon.close()


def limited(fn, *args, **more) -> Counts:
    """In a process of its own, so that a crash or a bomb costs no more than that."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(fn, args, more)
