"""Makes a product again of what it says that it was made of, apart from everything, and compares the two.

    answer = reproduce(path, finder, into=None)
    answer.result        # "identical": every byte; "different": answer.differences; "cannot": answer.missing

Inputs are found by their content, wherever they lie by now. A calibration whose file is gone is made again
first, as the ledger has it on record, and must come out with the bytes that were used. Nothing of the
daemon's is touched, and the ledger is only read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from daemon.arrivals.read import ingest
from daemon.engine import software
from daemon.ledger import whereabouts
from daemon.model.jobs import CalInput, Input, JobSpec, input_key
from daemon.model.names import QUICKLOOK, SUPERSEDED
from daemon.upkeep import provenance
from daemon.upkeep.inputfiles import Finder
from daemon.upkeep.provenance import ProductOnDisk
from daemon.work import worker
from pipeline import levels, produce
from pipeline.errors import DamagedFile, NiridError
from pipeline.files import disk
from pipeline.files.differences import Difference, differences
from pipeline.files.structure import hash_file
from pipeline.files.write import verify_product
from pipeline.recipes import RECIPES

THESE = "these bytes"
UNSURE = "other bytes"
SAME = "other bytes, with the same pixels and the same cards that count"
AGAIN = "was gone, and was made again with these bytes"
_OF_RELEASES = {("HISTORY", "version"), ("primary", "PROCSVER")}
_OF_RELEASES |= {("primary", card) for card in software.CARDS.values()}


@dataclass(frozen=True)
class Used:
    """An input or a calibration. role : as in PROVENANCE; path : "" if it cannot be had; how : or why not"""

    name: str
    role: str
    sha256: str
    path: str
    how: str


@dataclass(frozen=True)
class Release:
    """Something that the bits may depend on. made : with which the product was made, "" where not recorded"""

    name: str
    made: str
    here: str

    @property
    def differs(self) -> bool:
        return bool(self.made) and self.made != self.here


@dataclass(frozen=True)
class Reproduction:
    """What came out. made : the new file, where it is kept; notes : what is worth knowing besides

    preview : whether the picture beside it is the same, None where there is none to compare
    why : of "cannot", beside what is missing
    """

    product: Path
    result: Literal["identical", "different", "cannot"]
    releases: tuple[Release, ...]
    used: tuple[Used, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    why: str = ""
    made: Path | None = None
    preview: bool | None = None

    @property
    def missing(self) -> tuple[Used, ...]:
        return tuple(one for one in self.used if not one.path)

    @property
    def only_releases(self) -> bool:
        """Nothing differs but which versions it was made with, as it says itself."""
        return self.result == "different" and all((d.part, d.what) in _OF_RELEASES for d in self.differences)

    @property
    def sigma(self) -> float | None:
        """The largest difference of a pixel in units of sqrt(VAR); None where none differs or has a VAR."""
        return max((d.sigma for d in self.differences if d.sigma is not None), default=None)


def reproduce(path: Path, finder: Finder, *, into: Path | None = None, threads: int = 1) -> Reproduction:
    """Make the product at a path again, and compare. into : a folder that keeps the new file

    Raises DamagedFile for what is no product of the daemon's, NiridError where a file of its name is in
    `into` already, OSError.
    """
    product = provenance.read(path, night_folder(path).parent, whole=False)
    kept = None if into is None else into / f"{product.name}.fits"
    for there in [] if kept is None else [kept, kept.with_suffix(".png")]:
        if os.path.lexists(there):
            raise NiridError(f"{there} is there already: name another folder")
    answer = Reproduction(path, "cannot", _releases(product, finder), notes=tuple(_notes(product)))
    if into is not None:
        disk.make_folder(into)
    with tempfile.TemporaryDirectory(prefix=".nirid-again-", dir=into) as folder:
        maker = _Maker(finder, Path(folder), threads)
        try:
            made = maker.make(_spec(product, finder), product.input_key, product.by_path)
        except NiridError as error:
            return replace(answer, used=tuple(maker.used), why=str(error))
        answer = _compared(replace(answer, used=tuple(maker.used)), made)
        if kept is not None:
            for suffix in (".png", ".fits"):
                os.rename(made.with_suffix(suffix), kept.with_suffix(suffix))
        return replace(answer, made=kept)


def night_folder(path: Path) -> Path:
    """The folder of its night, if it lies in one."""
    return path.parent.parent if path.parent.name in (SUPERSEDED, QUICKLOOK) else path.parent


def _compared(answer: Reproduction, made: Path) -> Reproduction:
    same = hash_file(answer.product) == hash_file(made)
    found = () if same else differences(answer.product, made)
    pictures = [answer.product.with_suffix(".png"), made.with_suffix(".png")]
    preview = disk.hash_of(pictures[0]) == disk.hash_of(pictures[1]) if pictures[0].is_file() else None
    if not same and not found:
        found = (Difference("file", "part", "", "the same cards, cells and numbers", "in other bytes"),)
    return replace(answer, result="identical" if same else "different", differences=found, preview=preview)


def _releases(product: ProductOnDisk, finder: Finder) -> tuple[Release, ...]:
    here = software.versions()
    rows = [Release(name, product.made_with.get(name, ""), here[name]) for name in ("nirid", *software.CARDS)]
    recipe = RECIPES.get(product.recipe)
    number = f"{product.recipe} {recipe.version}" if recipe else "no such recipe"
    rows.append(Release("recipe", f"{product.recipe} {product.version}", number))
    made_on = "" if finder.db is None else whereabouts.processor_of(finder.db, product.key)
    return (*rows, Release("processor features", made_on, software.processor()))


def _notes(product: ProductOnDisk) -> list[str]:
    try:
        verify_product(product.path)
    except DamagedFile as error:
        return [f"it is not as it was written: {error}"]
    return []


def _spec(product: ProductOnDisk, finder: Finder) -> JobSpec:
    """What it says that it was made of; where the ledger has its job, what each input is beside its bytes."""
    from astropy.io import fits

    job = None if finder.db is None else whereabouts.spec_of_key(finder.db, product.key)
    known = {one.file_sha: (one.data_sha, one.facts) for one in (job.inputs if job else ())}
    return JobSpec(
        key=product.key,
        recipe=product.recipe,
        recipe_version=product.version,
        group=product.group,
        inputs=tuple(Input("", name, sha, *known.get(sha, ("", "")), "") for name, sha in product.inputs),
        calibrations=tuple(CalInput(role, "", name, sha, "") for name, sha, role in product.calibrations),
        parameters=product.parameters,
        preset=product.preset,
        notes=job.notes if job else product.notes,
        name=product.name,
        night=product.night,
        time_stamp=product.time_stamp,
        levels=levels.of_header(fits.getheader(product.path)),
    )


@dataclass
class _Maker:
    """Makes products again in a folder of its own. used : what was found, or not, so far"""

    finder: Finder
    folder: Path
    threads: int
    used: list[Used] = field(default_factory=list)

    def make(self, spec: JobSpec, key: str = "", by_path: Sequence[tuple[str, str, str]] = ()) -> Path:
        """Make one; returns the path of the new file. key : INPUTKEY, "" where it is not known

        by_path : (name, SHA-256, role) of masks that the parameters name by path
        Raises NiridError when something is missing or cannot be reduced, OSError.
        """
        if spec.recipe not in RECIPES:
            raise NiridError(f"this release has no recipe {spec.recipe}")
        inputs = self._inputs(spec.inputs, key)
        cals = [
            replace(c, path=self._calibration(c.role, c.name, c.sha, spec.key)) for c in spec.calibrations
        ]
        _, paths = produce.take_paths(spec.parameters, ["addDQ"])
        self.finder.at.update({sha: paths[role] for _, sha, role in by_path if paths.get(role)})
        masks = {role: self._calibration(role, name, sha, spec.key) for name, sha, role in by_path}
        if lacking := [one.name for one in self.used if not one.path]:
            raise NiridError(f"{', '.join(lacking)} cannot be had")
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        staging = str(folder / spec.name)
        found = replace(spec, inputs=inputs, calibrations=tuple(cals), products=str(folder), staging=staging)
        job = {**found.to_json(), "cache": str(folder), "threads": self.threads}
        lie = {c.role: c.path for c in cals} | masks
        places = {path: lie[role] for role, path in paths.items() if path and role in lie}
        return Path(worker.run({**job, "places": places}, lambda: False)["fits"])

    def _inputs(self, wanted: Sequence[Input], key: str) -> tuple[Input, ...]:
        found = [self._input(one) for one in wanted]
        proved = input_key([one for one, _ in found]) == key
        for one, how in found:
            if how == UNSURE:
                one, how = (one, SAME) if proved else (replace(one, path=""), "")
            how = how or self.finder.why(one.name, one.file_sha)
            self.used.append(Used(one.name, "input", one.file_sha, one.path, how))
        return tuple(one for one, _ in found)

    def _input(self, wanted: Input) -> tuple[Input, str]:
        """The frame where it lies now, and how it was found; path "" when it is not."""
        if path := self.finder.find(wanted.name, wanted.file_sha):
            return _described(wanted, path), THESE
        others = [_described(wanted, path) for path in self.finder.others(wanted.name, wanted.file_sha)]
        if not wanted.data_sha:  # nothing is known of it alone: the key of all inputs can tell
            return (others[0], UNSURE) if others else (wanted, "")
        same = (one for one in others if (one.data_sha, one.facts) == (wanted.data_sha, wanted.facts))
        return next(((one, SAME) for one in same), (replace(wanted, path=""), ""))

    def _calibration(self, role: str, name: str, sha256: str, user: str) -> str:
        """Where it lies: made again when its file is gone and the ledger knows how; "" if it is lost."""
        path, how = self.finder.find(name, sha256), THESE
        if path is None:
            path, how = self._again(name, sha256, user)
        self.used.append(Used(name, role, sha256, path, how))
        return path

    def _again(self, name: str, sha256: str, user: str) -> tuple[str, str]:
        why = self.finder.why(name, sha256)
        spec = None if self.finder.db is None else whereabouts.maker_of(self.finder.db, sha256, user)
        if spec is None:
            return "", why
        maker = _Maker(self.finder, self.folder, self.threads)
        try:
            path = maker.make(spec)
        except NiridError as error:
            return "", f"{why}; it cannot be made again: {error}"
        if hash_file(path) != sha256:
            return "", f"{why}; made again, it has other bytes"
        return str(path), AGAIN


def _described(wanted: Input, path: str) -> Input:
    record = ingest(path, patience="batch")
    return replace(wanted, path=path, data_sha=record.data_sha, facts=record.facts)
