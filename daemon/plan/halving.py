"""Which part of a failed group is tried next, and what an answer means."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Search:
    """Positions in the job's list of inputs.

    suspects : the bad frame is one of them; good : known to be harmless; fixed : part of every try
    first : whether the first half could be reduced; None as long as it has not been tried
    """

    suspects: tuple[int, ...]
    good: tuple[int, ...] = ()
    fixed: tuple[int, ...] = ()
    narrowing: bool = False
    first: bool | None = None
    confirming: bool = False
    deaths: int = 0  # of workers that had to do what is tried now

    def halves(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.suspects[::2], self.suspects[1::2]

    def part(self) -> tuple[int, ...]:
        """What is to be tried next."""
        if self.confirming:
            return tuple(sorted((*self.suspects, *self.good, *self.fixed)))
        one, two = self.halves()
        half = two if self.first is not None else one
        return tuple(sorted((*half, *self.good, *self.fixed)))

    def told(self, *, reduced: bool) -> Search | str | int:
        """After a try: the search that goes on, the position of the bad frame, or why it cannot be found."""
        if self.confirming:
            return "it does no harm in other company" if reduced else self.suspects[0]
        one, two = self.halves()
        if self.narrowing:
            good = (*self.good, *one) if reduced else self.good
            if not reduced and len(one) == 1:  # it has just failed among harmless frames
                return one[0]
            return self._narrowed(two if reduced else one, good)
        if self.first is None:
            return replace(self, first=reduced, deaths=0)
        if self.first == reduced:
            return "each half can be reduced alone" if reduced else "both halves fail"
        return self._narrowed(two, one) if self.first else self._narrowed(one, two)

    def _narrowed(self, suspects: tuple[int, ...], good: tuple[int, ...]) -> Search | int:
        return Search(suspects, good, self.fixed, narrowing=True, confirming=len(suspects) == 1)

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Search:
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("suspects", "good", "fixed")}
        return cls(**{**values, **lists})
