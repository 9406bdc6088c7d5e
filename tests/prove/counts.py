"""What is printed of a part: how much was tried, and what went wrong, which must be nothing."""

from dataclasses import asdict, dataclass, field

KINDS = ("lost", "doubled", "torn", "hung")


@dataclass
class Counts:
    """lost : not accounted for, or refused without need; doubled : done twice; torn : taken or shown though
    not whole; hung : no end, or too much time or memory. found : sentences; more : other figures"""

    tried: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    hung: int = 0
    seconds: float = 0.0
    found: list[str] = field(default_factory=list)
    more: dict = field(default_factory=dict)

    def take(self, what: str, bad: dict[str, list[str]]) -> None:
        """One trial, and what was wrong with it."""
        self.tried += 1
        for kind, sentences in bad.items():
            setattr(self, kind, getattr(self, kind) + bool(sentences))
            self.found += [f"{what}: {kind}: {s}" for s in sentences]

    @property
    def red(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def add(self, other: "Counts") -> "Counts":
        """With what another process has tried at the same time."""
        for name in ("tried", *KINDS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds = max(self.seconds, other.seconds)
        self.found += other.found
        for key, value in other.more.items():
            kept = self.more.get(key)
            self.more[key] = kept + value if isinstance(kept, int) and not key.startswith("=") else value
        return self

    def to_json(self) -> dict:
        return asdict(self)
