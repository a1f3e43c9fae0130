"""The few exceptions of HEAN: most of what goes wrong in trading is an ordinary message."""


class HeanError(Exception):
    """Something HEAN refuses to go on with; the text names the remedy."""


class ConfigError(HeanError):
    """A setting, an option or a strategy file is wrong: the text names the field."""


class DataError(HeanError):
    """Market data is missing or wrong.

    Args:
        reason: What is wrong, in words.
        file: The file it was found in, if any.
        row: The row, counted from 1 as an editor would, if any.
        remedy: What to do about it.
    """

    def __init__(self, reason: str, *, file: str | None = None, row: int | None = None, remedy: str = "") -> None:
        self.reason = reason
        self.file = file
        self.row = row
        self.remedy = remedy
        where = f"{file}: " if file else ""
        where += f"row {row}: " if row is not None else ""
        super().__init__(where + reason + (f" ({remedy})" if remedy else ""))


class ContractError(HeanError):
    """A component broke a promise of the house: a bug of ours, never an ordinary day."""


class JournalError(HeanError):
    """A journal cannot be read, written, or gone on with; the text names the file and the remedy."""


class VenueError(HeanError):
    """The venue did not do what was asked of it, and nothing can go on without."""
