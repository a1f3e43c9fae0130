"""Setting a strategy otherwise while the engine runs: what was asked, made into settings that hold, or refused in words."""

import difflib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from hean.engine_settings import EngineSettings
from hean.errors import ConfigError
from hean.live_system import live_strategies
from hean.settings import validated
from hean.trading_system import Strategy, default_sizing

OF_RISK = ("share", "sizing")
"""What is no parameter of the strategy itself, but risk's word on it."""


class Changed(Struct, frozen=True):
    """One setting, before and after, as JSON."""

    name: str
    old: str
    new: str


class Configured(Struct, frozen=True):
    """The whole tree as it is to be, what changes in it, and whose settings that are: strategies of one entry share them."""

    settings: EngineSettings
    changes: tuple[Changed, ...]
    strategies: tuple[str, ...]
    widens: tuple[str, ...]


def configured(
    settings: EngineSettings, strategy: str, changes: Mapping[str, Any], held: Mapping[str, Collection[str]]
) -> Configured:
    """Lay changes over one strategy's settings.

    Args:
        settings: As they are.
        strategy: Its name, as `hean why` shows it.
        changes: New values by name: a parameter of the strategy, `share`, or `sizing` with all that belongs to it. A dot
            goes into a table; None puts a parameter back to what it is by default.
        held: By strategy, the instruments of which it holds something.

    Returns:
        `widens` names whose share or size would grow, in words: a run with real money does not take that.

    Raises:
        ConfigError: There is no such strategy or setting, a value does not fit, nothing would change, or what is held
            would be nobody's any more.
    """
    before = {one.name: one for one in live_strategies(settings)}
    if strategy not in before:
        near = difflib.get_close_matches(strategy, before, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(before)}"
        raise ConfigError(f"there is no strategy {strategy}: {hint}")
    if not changes:
        raise ConfigError(f"{strategy}: name what is to change, such as share=0.2")
    wanted = before[strategy].settings
    place = next(at for at, one in enumerate(settings.strategies) if one is wanted)
    entry = wanted.model_dump()
    own = type(before[strategy].component.config).model_fields
    for name, value in changes.items():
        path = name.split(".")
        _put(entry if path[0] in OF_RISK and path[0] not in own else entry["config"], path, value)
    tree = settings.model_dump()
    tree["strategies"] = [*tree["strategies"][:place], entry, *tree["strategies"][place + 1 :]]
    made: EngineSettings = validated(EngineSettings, tree)
    after = {one.name: one for one in live_strategies(made)}
    _must_own(before, after, held)
    _must_last(made)
    found = _unlike(_plain(before[strategy]), _plain(after[strategy]))
    if not found:
        raise ConfigError(f"{strategy}: nothing would change, all of that is so already")
    concerned = tuple(name for name, one in before.items() if one.settings is wanted)
    return Configured(made, found, concerned, _widened(before, after))


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    *stem, leaf = path
    for part in stem:
        inner = table.get(part)
        table[part] = table = {} if not isinstance(inner, dict) else dict(inner)
    if value is None:
        table.pop(leaf, None)
    else:
        table[leaf] = value


def _must_own(
    before: Mapping[str, Strategy], after: Mapping[str, Strategy], held: Mapping[str, Collection[str]]
) -> None:
    if before.keys() != after.keys():
        raise ConfigError(
            "name: a strategy keeps its name while the engine runs, what it holds is written down under it; "
            "`hean flatten`, `hean down`, then another settings file"
        )
    for name, instruments in held.items():
        lost = sorted(set(instruments) - set(after[name].instruments)) if name in after else []
        if lost:
            raise ConfigError(f"{name} holds {', '.join(lost)}, and would trade it no more: let it close that first")


def _must_last(settings: EngineSettings) -> None:
    """The engine is begun anew from what is written down, and JSON knows no infinity."""
    kept = None
    with suppress(ConfigError):
        kept = validated(EngineSettings, json.loads(settings.model_dump_json()))
    if kept != settings:
        raise ConfigError("a number that is not finite cannot be written down for the next start: name another")


def _plain(strategy: Strategy) -> dict[str, Any]:
    """All that may be changed of a strategy, by name, as JSON has it."""
    sizing = strategy.settings.sizing or default_sizing(strategy)
    own: dict[str, Any] = strategy.component.config.model_dump(mode="json")
    return {"share": str(strategy.share), "sizing": sizing.model_dump(mode="json")} | own


def _unlike(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Changed, ...]:
    return tuple(
        Changed(name, json.dumps(before[name]), json.dumps(after[name]))
        for name in after
        if before[name] != after[name]
    )


def _widened(before: Mapping[str, Strategy], after: Mapping[str, Strategy]) -> tuple[str, ...]:
    """Whose positions may be larger than before: those of others too, since what one leaves free the others divide."""
    found = []
    for name, new in after.items():
        old = before[name]
        if new.share > old.share:
            found.append(f"the share of {name} would grow from {old.share} to {new.share}")
        was, becomes = old.settings.sizing or default_sizing(old), new.settings.sizing or default_sizing(new)
        if was != becomes and not _is_narrower(was.model_dump(), becomes.model_dump()):
            found.append(f"the sizing of {name} would change, and not only to less")
    return tuple(found)


def _is_narrower(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether every figure is the same or less. What is no figure must be the same."""
    return before.keys() == after.keys() and all(
        after[name] == was
        or (isinstance(was, int | float) and isinstance(after[name], int | float) and after[name] <= was)
        for name, was in before.items()
    )
