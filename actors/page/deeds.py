"""What a person may have done, and what will happen then, in words: from what was heard last, never from a guess."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from actors.page.client import Command
from actors.page.store import Store
from actors.page.words import UNKNOWN, money, number, plain, quantity

WAITING = frozenset({"submitted", "unknown", "accepted"})
"""States in which an order may still trade."""

REAL = "live"
_LISTED = 8


class Effect(Struct, frozen=True):
    """One thing that will happen, and what to. `tone` is "warn" or "danger" where it wants to be looked at."""

    text: str
    items: tuple[str, ...] = ()
    tone: str = ""


class Deed(Struct, frozen=True):
    """Something to be done.

    Args:
        title: A question's head.
        verb: What is written on the button.
        path: Where it is posted.
        body: What it says, but for the reason.
        effects: What will happen, as far as is known now; asked again while the person thinks.
        word: What must be typed before; empty asks for nothing.
        danger: Whether it takes money or control away.
        reason: Whether a reason is asked for, and must be given.
        reasons: Some that are often given.
        after: What is left to happen once it is said, asked again and again; empty when all is done.
    """

    title: str
    verb: str
    path: str
    effects: Callable[[], Sequence[Effect]]
    body: Mapping[str, Any] = {}
    word: str = ""
    danger: bool = False
    reason: bool = True
    reasons: tuple[str, ...] = ()
    after: Callable[[], Sequence[Effect]] | None = None

    def command(self, reason: str, person: str) -> Command:
        told = {**self.body, "person": person}
        return Command(self.path, {**told, "reason": reason} if self.reason else told)


# --- the engine -----------------------------------------------------------------------------------


def start(store: Store) -> Deed:
    return Deed(
        title="Begin to trade",
        verb="Begin to trade",
        path="/engine/start",
        effects=lambda: _starting(store),
        reason=False,
    )


def stop(store: Store, mode: str) -> Deed:
    """Args:
    mode: "graceful", "reduce" or "flatten".
    """
    effects = {"graceful": _finishing, "reduce": _reducing, "flatten": _flattening}[mode]
    verb = {"graceful": "Stop", "reduce": "Stop and cancel", "flatten": "Close everything"}[mode]
    return Deed(
        title="Stop trading" if mode != "flatten" else "Close everything and stop",
        verb=verb,
        path="/engine/stop",
        body={"mode": mode},
        effects=lambda: effects(store),
        danger=mode == "flatten",
        reasons=("end of the day", "maintenance", "news ahead", "test"),
        after=(lambda: left(store)) if mode == "flatten" else None,
    )


def kill(store: Store) -> Deed:
    return Deed(
        title="Pull the kill switch",
        verb="Pull the kill switch",
        path="/engine/kill",
        effects=lambda: _killing(store),
        word="kill",
        danger=True,
        reasons=("something is wrong", "the market", "drill"),
        after=lambda: left(store),
    )


def reset(store: Store) -> Deed:
    return Deed(
        title="Put the kill switch back",
        verb="Put it back",
        path="/engine/reset",
        effects=lambda: _resetting(store),
        reasons=("cause found and removed", "it was a drill"),
    )


def switch(store: Store, strategy: str, *, on: bool) -> Deed:
    return Deed(
        title=f"{'Enable' if on else 'Disable'} {strategy}",
        verb="Enable" if on else "Disable",
        path=f"/strategies/{strategy}/{'enable' if on else 'disable'}",
        effects=lambda: _switching(store, strategy, on=on),
        reasons=("tried and found good",) if on else ("does what it should not", "news ahead", "test"),
    )


def configure(store: Store, strategy: str, now: Mapping[str, Any], changes: Mapping[str, Any]) -> Deed:
    """Args:
    now: Its parameters as they are.
    changes: Those that will be others.
    """
    return Deed(
        title=f"Change {strategy}",
        verb="Change and begin anew",
        path=f"/strategies/{strategy}/configure",
        body={"changes": dict(changes)},
        effects=lambda: _configuring(store, strategy, now, changes),
        reasons=("evaluated", "test"),
    )


# --- processes ------------------------------------------------------------------------------------


def begin_process(process: str, arguments: Mapping[str, str], key: str = "") -> Deed:
    given = tuple(f"{name}: {value}" for name, value in arguments.items())
    told = {"process": process, "arguments": dict(arguments)} | ({"key": key} if key else {})
    return Deed(
        title=f"Begin {process}",
        verb="Begin",
        path="/processes",
        body=told,
        effects=lambda: [Effect(f"A run of {process} begins with", given or ("what is usual",))],
        reason=False,
    )


def cancel_run(run: Mapping[str, Any]) -> Deed:
    name = run["run_id"]
    running = [step["name"] for step in run.get("steps", ()) if step.get("status") == "RUNNING"]
    effects = [Effect(f"The run {name} ends. Steps that are finished keep what they found.")]
    if running:
        effects.append(Effect("What is under way is stopped:", tuple(running), "warn"))
    return Deed(
        title=f"End {name}",
        verb="End the run",
        path=f"/processes/{name}/cancel",
        effects=lambda: effects,
        reasons=("no longer wanted", "asked for by mistake"),
    )


def decide_run(run: Mapping[str, Any], *, again: bool) -> Deed:
    name = run["run_id"]
    waits = run.get("waits_for") or run.get("reason") or "a person's decision"
    text = "The step is done once more, and the run goes on." if again else "The run is given up and stays as it is."
    return Deed(
        title=f"Decide on {name}",
        verb="Do it again" if again else "Give it up",
        path=f"/processes/{name}/decide",
        body={"again": again},
        effects=lambda: [Effect(f"It waits: {waits}"), Effect(text)],
        danger=not again,
        reasons=("looked, and it was not done", "looked, and it was done"),
    )


# --- what will happen -----------------------------------------------------------------------------


def _starting(store: Store) -> list[Effect]:
    status = store.status().value or {}
    venue, tripped = status.get("venue"), status.get("tripped")
    on = [one["name"] for one in _rows(store, "/strategies", "strategies") if one.get("enabled") is not False]
    found = [_where(status)]
    if tripped:
        found.append(
            Effect(f"The kill switch is pulled ({tripped}): nothing begins before it is put back.", tone="danger")
        )
    if blocked := status.get("blocked"):
        found.append(Effect("It begins as soon as nothing stands against it. Now this does:", tuple(blocked), "warn"))
    found.append(Effect("These strategies may open positions:", tuple(on) or ("none that is known",)))
    if venue == REAL and (permit := status.get("permit")):
        found.append(Effect("No order leaves, since:", tuple(permit), "warn"))
    return found


def _finishing(store: Store) -> list[Effect]:
    return [
        Effect("Nothing new is opened. Entries that are under way may finish."),
        _kept_orders(store, "may finish"),
        _kept(store),
        Effect("It stays so, over restarts, until somebody begins trading again."),
    ]


def _reducing(store: Store) -> list[Effect]:
    return [
        Effect("Nothing new is opened, and entries under way are called back."),
        _canceled(store),
        _kept(store),
        Effect("It stays so, over restarts, until somebody begins trading again."),
    ]


def _flattening(store: Store) -> list[Effect]:
    return [
        Effect("Nothing new is opened."),
        _canceled(store),
        *_closed(store),
        Effect("Trading can be begun again afterwards: the kill switch is not pulled."),
    ]


def _killing(store: Store) -> list[Effect]:
    status = store.status().value or {}
    found = [_where(status)]
    if tripped := status.get("tripped"):
        found.append(
            Effect(f"It is pulled already ({tripped}). Pulled again, it cancels and closes again.", tone="warn")
        )
    return [
        *found,
        Effect("Trading halts at once."),
        _canceled(store),
        *_closed(store),
        Effect("It stays pulled, over restarts, until a person puts it back and says why."),
    ]


def _resetting(store: Store) -> list[Effect]:
    status = store.status().value or {}
    tripped = status.get("tripped")
    if not tripped:
        return [Effect("The kill switch is not pulled, as far as is known: there is nothing to put back.", tone="warn")]
    return [
        Effect(f"It was pulled by: {tripped}"),
        Effect("After this, trading can be begun again. It does not begin by itself."),
        _kept(store),
    ]


def _switching(store: Store, strategy: str, *, on: bool) -> list[Effect]:
    if on:
        return [Effect(f"{strategy} may open positions again, within its limits.")]
    held = [one for one in _positions(store) if one.get("strategy") == strategy]
    found = [Effect(f"{strategy} opens nothing more. It may still close what it holds.")]
    if held:
        found.append(Effect("It holds, and keeps until it closes it itself:", _listed(held, _position)))
    return found


def _configuring(store: Store, strategy: str, now: Mapping[str, Any], changes: Mapping[str, Any]) -> list[Effect]:
    changed = tuple(f"{name}: {plain(now.get(name))} → {plain(value)}" for name, value in changes.items())
    held = [one for one in _positions(store) if one.get("strategy") == strategy]
    found = [
        Effect(f"{strategy} gets other parameters:", changed),
        Effect("The engine begins anew with them: trading pauses until books and venue agree again.", tone="warn"),
    ]
    if held:
        found.append(
            Effect("What it holds stays, and is looked after by the new parameters:", _listed(held, _position))
        )
    return found


def left(store: Store) -> list[Effect]:
    """What has yet to be cancelled or closed; empty once nothing is, and only if that is known."""
    found = []
    orders, held = _waiting(store), _ours(store)
    if orders is None or held is None:
        return [Effect("It is not known what is left.", tone="warn")]
    if orders:
        found.append(Effect(f"Still under way: {_count(orders, 'order')}", _listed(orders, _order)))
    if held:
        found.append(Effect(f"Still held: {_count(held, 'position')}", _listed(held, _position)))
    return found


def _where(status: Mapping[str, Any]) -> Effect:
    """With whose money."""
    venue = status.get("venue")
    equity = f"{money(status.get('equity'))} USDT" if status.get("equity") is not None else "an unknown equity"
    if venue == REAL:
        dry = " It is a dry run: no order leaves." if status.get("dry_run") else ""
        return Effect(f"LIVE: this is real money, {equity}.{dry}", tone="danger")
    if venue is None:
        return Effect("It is not known which venue this is.", tone="warn")
    return Effect(f"Venue: {venue}, no real money; {equity}.")


def _canceled(store: Store) -> Effect:
    orders = _waiting(store)
    if orders is None:
        return Effect("Orders under way are cancelled; which there are is not known.", tone="warn")
    if not orders:
        return Effect("No order is under way.")
    return Effect(f"{_count(orders, 'order')} under way {_is(orders)} cancelled:", _listed(orders, _order))


def _kept_orders(store: Store, what: str) -> Effect:
    orders = _waiting(store)
    if orders is None:
        return Effect("Which orders are under way is not known.", tone="warn")
    if not orders:
        return Effect("No order is under way.")
    return Effect(f"{_count(orders, 'order')} under way {what}:", _listed(orders, _order))


def _closed(store: Store) -> list[Effect]:
    held = _ours(store)
    if held is None:
        return [
            Effect("All positions of strategies are closed at the market; which there are is not known.", tone="warn")
        ]
    if not held:
        return [Effect("No strategy holds anything.")]
    total = _total(held)
    worth = f", {total} together" if total else ""
    found = [
        Effect(f"{_count(held, 'position')} {_is(held)} closed at the market{worth}:", _listed(held, _position)),
    ]
    if pairs := [pair for pair in _rows(store, "/positions", "pairs") if pair.get("strategy")]:
        legs = tuple(f"{pair['strategy']} {pair['base']}" for pair in pairs)
        found.append(Effect("Legs that hedge each other are closed together:", legs))
    return found


def _kept(store: Store) -> Effect:
    held = _ours(store)
    if held is None:
        return Effect("Positions stay as they are; which there are is not known.", tone="warn")
    if not held:
        return Effect("No strategy holds anything.")
    return Effect(
        f"{_count(held, 'position')} {'stays' if len(held) == 1 else 'stay'} as {'it is' if len(held) == 1 else 'they are'}:",
        _listed(held, _position),
    )


# --- from what was heard --------------------------------------------------------------------------


def _rows(store: Store, path: str, name: str) -> list[dict[str, Any]]:
    return list((store.see(path).value or {}).get(name) or ())


def _positions(store: Store) -> list[dict[str, Any]]:
    return _rows(store, "/positions", "positions")


def _ours(store: Store) -> list[dict[str, Any]] | None:
    """What strategies hold, dust aside; None where it was never heard. What nobody's strategy holds is the owner's."""
    if store.see("/positions").value is None:
        return None
    return [one for one in _positions(store) if one.get("strategy") and number(one.get("quantity"))]


def _waiting(store: Store) -> list[dict[str, Any]] | None:
    """Orders that may still trade; None where it was never heard."""
    if store.see("/orders").value is None:
        return None
    return [one for one in _rows(store, "/orders", "orders") if one.get("status") in WAITING]


def _order(order: Mapping[str, Any]) -> str:
    size = quantity(order.get("quantity")) if order.get("quantity") is not None else ""
    doubt = ", and what became of it is not known" if order.get("status") == "unknown" else ""
    side = str(order.get("side") or "").lower()
    return (
        " ".join(word for word in (side, size, str(order.get("instrument")), "of", str(order.get("strategy"))) if word)
        + doubt
    )


def _position(position: Mapping[str, Any]) -> str:
    held = number(position.get("quantity")) or Decimal(0)
    way = "long" if held > 0 else "short"
    return f"{way} {quantity(abs(held))} {position.get('instrument')} of {position.get('strategy')}, {_worth(position)}"


def _worth(position: Mapping[str, Any]) -> str:
    value = _value(position)
    if value is None:
        return f"worth {UNKNOWN}"
    at = "now" if position.get("mark") is not None else "at its entry price"
    return f"{money(abs(value))} USDT {at}"


def _value(position: Mapping[str, Any]) -> Decimal | None:
    held, said = number(position.get("quantity")), number(position.get("value"))
    if said is not None:
        return said
    price = number(position.get("mark")) or number(position.get("entry"))
    return None if held is None or price is None else held * price


def _total(held: Iterable[Mapping[str, Any]]) -> str:
    values = [_value(one) for one in held]
    known = [abs(value) for value in values if value is not None]
    return f"{money(sum(known))} USDT" if known and len(known) == len(values) else ""


def _listed(rows: Sequence[Mapping[str, Any]], write: Callable[[Mapping[str, Any]], str]) -> tuple[str, ...]:
    """Each of them, those that read alike together; of very many the first, and how many more there are."""
    alike = Counter(write(row) for row in rows)
    told = [f"{count} times {text}" if count > 1 else text for text, count in alike.items()]
    more = len(rows) - sum(list(alike.values())[:_LISTED])
    return tuple(told[:_LISTED]) + ((f"and {more} more",) if more else ())


def _count(rows: Sequence[Any], what: str) -> str:
    return f"{len(rows)} {what}{'' if len(rows) == 1 else 's'}"


def _is(rows: Sequence[Any]) -> str:
    return "is" if len(rows) == 1 else "are"
