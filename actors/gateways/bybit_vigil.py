"""What an account must not forget: to catch up, to notice a silence, and to insist on a cancel of everything.

Small machines without a clock, each told the time.
"""

from hean.instruments import Category
from hean.units import SECOND

_LONGEST_PAUSE_S = 30.0


def _pause_s(patience_s: float, failures: int) -> float:
    """What cannot be had now may never be: it is asked for later and later."""
    return min(patience_s * 2.0 ** min(failures, 10), _LONGEST_PAUSE_S)


class CatchUp:
    """When everything is asked for once more, after something was missed."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._under_way = False
        self._failures = 0
        self._due: int | None = None

    def begin(self) -> bool:
        """Whether to ask now; False while an answer is on its way."""
        self._due = None
        begun, self._under_way = not self._under_way, True
        return begun

    def answered(self, now: int, *, failed: bool) -> None:
        """An answer came; one of which a part failed is asked for again."""
        self._under_way = False
        self._due = now + int(_pause_s(self._patience_s, self._failures) * SECOND) if failed else None
        self._failures = self._failures + 1 if failed else 0

    def due(self, now: int) -> bool:
        return self._due is not None and now >= self._due


class Silence:
    """A private stream that says nothing while there is something to say of: it may be dead, or deaf to some topic.

    Between two orders of a pair there is none for a moment, so what was open a while ago counts as well.
    """

    def __init__(self, limit_s: float, ticks: int) -> None:
        self.limit_s = limit_s
        self._limit = int(limit_s * SECOND)
        self._heard = ticks
        self._at_work = ticks - self._limit - 1

    def heard(self, ticks: int) -> None:
        self._heard = ticks

    def too_long(self, ticks: int, *, at_work: bool) -> bool:
        """Whether it has been silent for too long; said once for each such time."""
        if at_work:
            if ticks - self._at_work > self._limit:
                self._heard = ticks  # before, there was nothing to say
            self._at_work = ticks
        if ticks - self._at_work > self._limit or ticks - self._heard <= self._limit:
            return False
        self._heard = ticks
        return True


class Insistence:
    """A cancel of everything is asked for until the venue says yes: whatever it said before, something may still rest."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._failures: dict[Category, int] = {}
        self._due: dict[Category, int] = {}

    def begin(self, category: Category) -> None:
        self._failures[category] = 0
        self._due.pop(category, None)

    def accepted(self, category: Category) -> None:
        self._failures.pop(category, None)
        self._due.pop(category, None)

    def failed(self, category: Category, ticks: int) -> float:
        """The venue did not say yes; after how many seconds it is asked again."""
        failures = self._failures.get(category, 0)
        pause = _pause_s(self._patience_s, failures)
        self._failures[category] = failures + 1
        self._due[category] = ticks + int(pause * SECOND)
        return pause

    def due(self, ticks: int) -> list[Category]:
        """What to ask for now; each is given out once."""
        due = [category for category, at in self._due.items() if ticks >= at]
        for category in due:
            del self._due[category]
        return due
