# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults
"""The engine's commands, from `hean up` to `hean replay`: `COMMANDS` lists them."""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.console import people, saying_errors

if TYPE_CHECKING:
    from rich.console import RenderableType

    from actors.foreground import Wanted
    from actors.last_resort import Flattened
    from actors.up import Surroundings
    from actors.words import Arming, EngineView
    from hean.engine_settings import EngineSettings

Home = Annotated[
    Path, typer.Option("--home", envvar="HEAN_HOME", help="Directory that HEAN keeps its things in.", file_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is written down with your name.")]
ApiPort = Annotated[
    int | None,
    typer.Option(
        "--api-port", min=1, max=65535, help="Where the API listens, on loopback [default: 8000].", show_default=False
    ),
]
PagePort = Annotated[
    int | None,
    typer.Option(
        "--page-port", min=1, max=65535, help="Where the page listens, on loopback [default: 3000].", show_default=False
    ),
]
Strategy = Annotated[str, typer.Argument(help="Its name, as `hean why` shows it.")]
_HOME = Path(".hean")
_DEMO_HOME = Path(".hean-demo")
_INTERRUPTED = 130
_KILL_ANSWER_S = 6.0
_FLAT_S = 60.0


def up(
    venue: Annotated[
        str | None,
        typer.Option(
            "--venue",
            envvar="HEAN_VENUE",
            help="sandbox, paper, testnet, demo or live [default: sandbox].",
            show_default=False,
        ),
    ] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="TOML file of settings, in place of the mode's own.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, such as risk.gross_exposure=1.5 or strategy.trigger=2. Repeat it."),
    ] = None,
    symbols: Annotated[
        str | None, typer.Option("--symbols", help="Symbols, divided by commas, such as BTCUSDT,ETHUSDT.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", envvar="HEAN_KEYS", help="TOML file with key and secret of the account, readable by you alone."
        ),
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="How many seconds to wait until it trades, or says why not.")
    ] = 120.0,
    api: Annotated[bool, typer.Option("--api/--no-api", help="Whether there is an API.")] = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether there is a page.")] = True,
    api_port: ApiPort = None,
    page_port: PagePort = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="A further name that API and page may be called by, behind a proxy. Repeat it."),
    ] = None,
    foreground: Annotated[
        bool,
        typer.Option("--foreground", help="Stay, begin anew what dies, and end everything at Ctrl-C or SIGTERM."),
    ] = False,
    object_store_mb: Annotated[
        int | None,
        typer.Option(
            "--object-store-mb", min=80, help="Memory for Ray's objects [default: Ray's own].", show_default=False
        ),
    ] = None,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Begin to trade: Ray, the engine and all of its actors, the API and the page. What runs already is left as it is.

    Without options that is the sandbox: a Bybit on this machine, with play money.

    Examples:

      hean up

      hean up --venue paper --symbols BTCUSDT,ETHUSDT,SOLUSDT

      hean up --venue testnet --keys keys.toml
    """
    with saying_errors(as_json=as_json):
        from actors import front
        from actors import up as everything

        said = (_mode(venue), settings_file, assignments or [], _symbols(symbols))
        settings, set_by = everything.settings_for(*said), everything.origins_for(*said)
        if settings.venue.is_real and not settings.dry_run:
            settings = _confirmed(settings)
        home = home.absolute()
        doors = front.Doors(api, page, api_port, page_port, tuple(hosts or ()))
        if foreground:
            from actors.foreground import Wanted

            _in_the_foreground(
                Wanted(home, settings, doors, keys, set_by, object_store_mb=object_store_mb, wait_s=wait_s),
                as_json=as_json,
            )
            return
        try:
            with _spinner(quiet=as_json) as tell:
                front.check(home, doors)
                everything.begin(home, settings, keys, tell, set_by=set_by, object_store_mb=object_store_mb)
                troubles = front.begin(home, doors, tell)
                view = everything.wait_until_running(home, wait_s, lambda seen: tell(everything.progress(seen)))
        except KeyboardInterrupt:
            people().print(_left_running(home), markup=False)
            raise typer.Exit(_INTERRUPTED) from None
        for trouble in troubles:
            people().print(trouble, style="yellow", markup=False)
        around = everything.surroundings(home)
        if as_json:
            _print_json({"engine": view, "surroundings": around})
        else:
            _show_begun(home, view, around)
        if view is None or view.phase != "RUNNING":
            raise typer.Exit(1)


def down(home: Home = _HOME, as_json: AsJson = False) -> None:
    """End everything in order: engine, API, page, watchdog, exchange, Ray. What is held stays held, its stops with it.

    Entry orders are called back. To hold nothing, say `hean flatten` first.
    """
    with saying_errors(as_json=as_json):
        from actors import foreground
        from actors import up as everything

        home = home.absolute()
        with _spinner(quiet=as_json) as tell:
            if foreground.ask_to_end(home, tell):
                tell("it has ended everything")
            everything.end(home, tell)
        if as_json:
            _print_json({"ended": True})
        else:
            people().print("Everything is ended.")


def demo(
    api_port: ApiPort = None,
    page_port: PagePort = None,
    prometheus: Annotated[
        Path | None,
        typer.Option(
            "--prometheus",
            help="Configuration of a Prometheus that runs beside it, on port 9091.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    home: Annotated[
        Path, typer.Option("--home", help="Directory of the demonstration, begun anew each time.", file_okay=False)
    ] = _DEMO_HOME,
) -> None:
    """Show everything: an exchange on this machine, the engine trading there with play money, its API and page. Ctrl-C ends it.

    It has a home of its own, and touches no other.
    """
    with saying_errors(as_json=False):
        from actors import up as everything
        from actors.foreground import Wanted
        from actors.front import Doors
        from hean.engine_settings import VenueMode

        settings = everything.settings_for(VenueMode.SANDBOX, None, (), None)
        doors = Doors(api_port=api_port, page_port=page_port)
        _in_the_foreground(
            Wanted(
                home.absolute(), settings, doors, prometheus=prometheus.absolute() if prometheus else None, fresh=True
            ),
            as_json=False,
        )


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look again each second, until Ctrl-C.")] = False,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Show equity, positions, how long ago all was reconciled, and each actor's age, restarts and mailbox."""
    with saying_errors(as_json=as_json):
        from actors import tables
        from actors import up as everything

        home = home.absolute()

        def look() -> tuple[dict[str, Any], "RenderableType"]:
            around = everything.surroundings(home)
            if not around.ray:
                trouble = "Ray is not running: `hean up` begins it"
            else:
                try:
                    view = everything.ask(home, "status")
                except everything.SilentError as silence:
                    trouble = str(silence)
                else:
                    return {"engine": view, "surroundings": around}, tables.status(view, around)
            said = {"engine": None, "trouble": trouble, "surroundings": around}
            return said, tables.trouble(trouble, around)

        if not watch:
            said, shown = look()
            _show(said, shown, as_json=as_json)
            if said["engine"] is None:
                raise typer.Exit(1)
            return
        _watch(look, as_json=as_json)


def positions(home: Home = _HOME, as_json: AsJson = False) -> None:
    """Show what each strategy holds."""
    with saying_errors(as_json=as_json):
        from actors import tables
        from actors import up as everything

        found = everything.ask(home, "positions")
        _show({"positions": found}, tables.positions(found) if found else "nothing is held", as_json=as_json)


def orders(
    most: Annotated[int, typer.Option("--most", min=1, help="How many are shown.")] = 40,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Show the orders that wait, then those that ended, the newest first."""
    with saying_errors(as_json=as_json):
        from actors import tables
        from actors import up as everything

        found = everything.ask(home, "orders", most)
        _show({"orders": found}, tables.orders(found) if found else "no order was made yet", as_json=as_json)


def why(
    strategy: Annotated[str | None, typer.Argument(help="One strategy; all where none is named.")] = None,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Say why a strategy did or did not trade: what it saw, what it waits for, what was refused, measured against its limit."""
    with saying_errors(as_json=as_json):
        from actors import tables
        from actors import up as everything

        found = everything.ask(home, "why", strategy)
        _show({"why": found}, tables.why(found), as_json=as_json)


def start(home: Home = _HOME, as_json: AsJson = False) -> None:
    """Let it trade, after it was stopped or the kill switch was reset."""
    with saying_errors(as_json=as_json):
        _order(home, "start", as_json=as_json, person=_person())


def stop(
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Let what is being opened come to its end; without it, entries are called back."),
    ] = False,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Open nothing more; what is held is held, and closed when its strategy says so. It stays so over restarts."""
    with saying_errors(as_json=as_json):
        _order(home, "stop", as_json=as_json, finish=finish, person=_person())


def flatten(reason: Reason, home: Home = _HOME, as_json: AsJson = False) -> None:
    """Close everything, and open nothing more until `hean start`."""
    with saying_errors(as_json=as_json):
        _order(home, "stop", as_json=as_json, flatten=True, person=_person(), reason=_reason(reason))


def kill(
    reason: Reason,
    now: Annotated[
        bool, typer.Option("--now", help="Do not ask the engine: close everything without it, with the keys alone.")
    ] = False,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Pull the kill switch: cancel all, close all, ask the venue whether anything is left; it stays out until `hean reset`.

    Where the engine does not answer in a few seconds, or Ray is dead, everything is closed without them.
    """
    with saying_errors(as_json=as_json):
        reason = _reason(reason)
        said = None if now else _asked_to_kill(home, reason)
        if said is not None:
            _say(said, as_json=as_json)
            return
        done = _last_resort(home, reason, as_json=as_json)
        if as_json:
            _print_json({"flattened": done})
        else:
            _show_flattened(done)
        # A call to Ray that never comes back would keep this process.
        _leave(0 if done.verified else 1)


def reset(reason: Reason, home: Home = _HOME, as_json: AsJson = False) -> None:
    """Put the kill switch back. Trading begins only with `hean start`."""
    with saying_errors(as_json=as_json):
        _order(home, "reset", as_json=as_json, person=_person(), reason=_reason(reason))


def enable(strategy: Strategy, reason: Reason, home: Home = _HOME, as_json: AsJson = False) -> None:
    """Let a strategy open positions again, after it was disabled."""
    with saying_errors(as_json=as_json):
        _order(home, "switch", strategy, as_json=as_json, on=True, person=_person(), reason=_reason(reason))


def disable(strategy: Strategy, reason: Reason, home: Home = _HOME, as_json: AsJson = False) -> None:
    """Let one strategy open nothing more; what it holds it may close. The others go on. It stays so over restarts."""
    with saying_errors(as_json=as_json):
        _order(home, "switch", strategy, as_json=as_json, on=False, person=_person(), reason=_reason(reason))


def configure(
    strategy: Strategy,
    assignments: Annotated[
        list[str], typer.Argument(help="New values, such as trigger=2.5 or share=0.2; NAME= puts the default back.")
    ],
    reason: Reason,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Set a strategy otherwise: the core begins anew with it in some seconds, and what is held stays held.

    It lasts until `hean down`: to keep it, write it into your settings file as well.

    Example:

      hean configure impulse-BTC trigger=2.5 --reason "too many small trades"
    """
    with saying_errors(as_json=as_json):
        changes = _changes(assignments)
        _order(home, "configure", strategy, changes, as_json=as_json, person=_person(), reason=_reason(reason))


def arm(
    nonce: Annotated[str, typer.Option("--nonce", help="The nonce that `hean arm` gave less than a minute ago.")] = "",
    phrase: Annotated[str, typer.Option("--phrase", help="The phrase that it asked for.")] = "",
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Arm live trading for a day: the last gate before real money. It shows what would be allowed, and asks for a phrase."""
    with saying_errors(as_json=as_json):
        answer = _asked_to_arm(home, nonce, phrase)
        if answer.nonce and not as_json:
            _show_allowed(answer)
            if sys.stdin.isatty():
                typed = typer.prompt(f'Type "{answer.phrase}" to go on', err=True)
                answer = _asked_to_arm(home, answer.nonce, typed)
            else:
                typer.echo(f'hean arm --nonce {answer.nonce} --phrase "{answer.phrase}"')
        if as_json:
            _print_json(answer)
        elif not answer.nonce:
            typer.echo("\n  ".join((answer.said, *answer.reasons)))
        if not answer.granted:
            raise typer.Exit(1)


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    node: Annotated[
        list[str] | None, typer.Option("--node", help="Of one actor only, such as risk. Repeat it for several.")
    ] = None,
    trace: Annotated[
        str,
        typer.Option(
            "--trace",
            help="The story of one thing: an HTTP request, a trace, a message, an order (our id or the venue's) or a trade.",
        ),
    ] = "",
    level: Annotated[str, typer.Option("--level", help="debug, info, warning, error or critical, and above.")] = "info",
    last: Annotated[
        int | None,
        typer.Option(
            "--last",
            min=0,
            help="How many of the last lines; 0 shows all there are. A story is told whole.",
            show_default="100",
        ),
    ] = None,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Show what all actors wrote, by time.

    Examples:

      hean logs --node risk --level warning

      hean logs --trace abc1-impulse-BTC-000123
    """
    with saying_errors(as_json=as_json):
        from actors import logs as written
        from actors import up as everything
        from hean.errors import ConfigError

        folder = everything.mode_folder(home)
        if level not in written.LEVELS:
            raise ConfigError(f"--level {level!r} is none of {', '.join(written.LEVELS)}")
        unknown = [name for name in node or [] if name not in written.nodes(folder)]
        if unknown:
            raise ConfigError(f"--node {unknown[0]}: it has no log; there are {', '.join(written.nodes(folder))}")
        wanted = written.Wanted(tuple(node or ()), trace, level)
        coming = written.followed(folder, wanted) if follow else None
        if trace:
            told = written.story(folder, trace).lines
            if not told and coming is None:
                raise ConfigError(f"--trace {trace}: no log that is kept names it")
            wanted = written.Wanted(wanted.nodes, level=level)
            lines = [line for line in told if wanted.takes(line)][-(last or 0) :]
        else:
            lines = written.newest(folder, wanted, 100 if last is None else last or sys.maxsize)
        _print_lines(lines, as_json=as_json)
        if coming is not None:
            try:
                _print_lines(coming, as_json=as_json)
            except KeyboardInterrupt:
                raise typer.Exit(0) from None


def replay(
    journal: Annotated[str, typer.Argument(help="A journal's file, or an actor of the last run, such as risk.")],
    from_snapshot: Annotated[
        bool, typer.Option("--from-snapshot", help="Tell only what came after the newest snapshot.")
    ] = False,
    home: Home = _HOME,
    as_json: AsJson = False,
) -> None:
    """Tell a component again what it was told, and say whether it says and becomes the same, to the byte.

    Nothing is changed; it may be done while the engine runs.
    """
    with saying_errors(as_json=as_json):
        from actors import up as everything
        from actors.replay import replay as told_again

        path = Path(journal)
        if path.suffix != ".db" and not path.exists():
            path = everything.mode_folder(home) / "journals" / f"{journal}.db"
        found = told_again(path, from_newest=from_snapshot)
        if as_json:
            _print_json(found)
        else:
            lives = "one life" if found.lives == 1 else f"{found.lives} lives"
            counts = (
                f"{found.entries:,} entries, {found.messages:,} messages said, {found.snapshots} snapshots, {lives}"
            )
            typer.echo(f"{found.node}: {counts}: {'the same' if found.is_same else 'NOT the same'}")
            if not found.is_same:
                typer.echo(f"  {found.difference}")
        if not found.is_same:
            raise typer.Exit(1)


COMMANDS: tuple[Callable[..., None], ...] = (
    up,
    down,
    demo,
    status,
    positions,
    orders,
    why,
    start,
    stop,
    flatten,
    kill,
    reset,
    enable,
    disable,
    configure,
    arm,
    logs,
    replay,
)


# --- up and down ------------------------------------------------------------------------------------


def _mode(venue: str | None) -> Any:
    from hean.engine_settings import VenueMode
    from hean.errors import ConfigError

    if venue is None:
        return None
    try:
        return VenueMode(venue)
    except ValueError:
        raise ConfigError(f"--venue {venue!r} is none of {', '.join(VenueMode)}") from None


def _symbols(text: str | None) -> tuple[str, ...] | None:
    from hean.errors import ConfigError

    if text is None:
        return None
    symbols = tuple(dict.fromkeys(name.strip().upper() for name in text.split(",") if name.strip()))
    if not symbols:
        raise ConfigError("--symbols names none: write BTCUSDT,ETHUSDT")
    return symbols


def _confirmed(settings: "EngineSettings") -> "EngineSettings":
    """Have a person type the phrase, where nothing else stands in the way and somebody is there to type."""
    from hean.arming import PHRASE
    from hean.permit import shut

    if settings.confirm_phrase or not sys.stdin.isatty() or shut(settings, PHRASE):
        return settings
    people().print("This sends orders to Bybit's main net, with real money.", style="bold red")
    return settings.model_copy(update={"confirm_phrase": typer.prompt(f'Type "{PHRASE}" to go on', err=True)})


def _in_the_foreground(wanted: "Wanted", *, as_json: bool) -> None:
    """Begin everything, say where it is, and stay until a signal comes."""
    from actors import foreground
    from actors import up as everything

    started = time.monotonic()
    before = ""

    def say(step: str) -> None:
        nonlocal before
        if step != before:
            before = step
            with suppress(OSError):  # a terminal that was closed is no reason not to end in order
                people().print(f"{time.monotonic() - started:6.1f} s  {step}", markup=False)

    def began(view: "EngineView | None") -> None:
        around = everything.surroundings(wanted.home)
        if as_json:
            _print_json({"engine": view, "surroundings": around})
            return
        trades = view is not None and view.phase == "RUNNING"
        say("it trades" if trades else "it does not trade yet; the engine goes on trying")
        _out().print(_addresses(wanted.home, around), markup=False)

    foreground.run(wanted, say, began)
    say("everything is ended")


def _addresses(home: Path, around: "Surroundings") -> str:
    """Where to look, and what opens it."""
    from actors.foreground import prometheus_url
    from actors.front import API_TOKEN

    lines = [""]
    if around.page_url is not None:
        lines.append(f"The page           {around.page_url}{'' if around.page else '   (does not answer yet)'}")
    if around.api_url is not None:
        lines.append(
            f"The API            {around.api_url}/docs   what changes something needs the token in {home / API_TOKEN}"
            f"{'' if around.api else '   (does not answer yet)'}"
        )
    if around.dashboard is not None:
        lines.append(f"Ray's dashboard    {around.dashboard}   it asks for the token in {home / 'ray.token'}")
    if (prometheus := prometheus_url(home)) is not None:
        lines.append(f"Prometheus         {prometheus}")
    lines += [
        f"In a terminal      hean status --watch --home {home}   hean why --home {home}",
        "The end            Ctrl-C",
        "",
    ]
    return "\n".join(lines)


def _left_running(home: Path) -> str:
    from actors import up as everything
    from hean.errors import HeanError

    try:
        around = everything.surroundings(home)
    except HeanError:
        return "Nothing was begun."
    running = [
        name
        for name, runs in (
            ("Ray", around.ray),
            ("the exchange", around.exchange),
            ("the watchdog", around.watchdog),
            ("the page", around.page),
        )
        if runs
    ]
    if not running:
        return "Nothing is left running."
    engine = " An engine that was begun goes on." if around.ray else ""
    return f"Left running: {', '.join(running)}.{engine} `hean up` goes on from here, `hean down` ends it."


def _show_begun(home: Path, view: "EngineView | None", around: "Surroundings") -> None:
    from actors import tables

    out = _out()
    if view is not None:
        out.print(tables.status(view, around))
    at = "" if home == _HOME.absolute() else f" --home {home}"
    lines = [""]
    if view is None or view.phase != "RUNNING":
        lines.append("It does not trade yet; the engine goes on trying. `hean status` says how far it is.")
    lines += [
        *([f"Look at it {around.page_url}"] if around.page else []),
        f"See it     hean status --watch{at}    hean why{at}    hean logs -f{at}",
        f"End it     hean down{at}",
        f"Get out    hean flatten --reason …{at}    hean kill --reason …{at}",
        f"Ray's own  . {home}/ray.env && ray list actors",
    ]
    out.print("\n".join(lines), markup=False)


def _watch(look: Callable[[], "tuple[dict[str, Any], RenderableType]"], *, as_json: bool) -> None:
    from rich.live import Live

    try:
        if as_json:
            while True:
                _print_json(look()[0])
                time.sleep(1)
        with Live(console=_out(), auto_refresh=False, screen=sys.stdout.isatty()) as live:
            while True:
                live.update(look()[1], refresh=True)
                time.sleep(1)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


class _Spinner:
    """Says each step to people: on a terminal in place, else a line each."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.status import Status

        self._console = people()
        self._quiet = quiet
        self._status = Status("", console=self._console) if self._console.is_terminal and not quiet else None
        self._before = ""

    def __enter__(self) -> Callable[[str], None]:
        if self._status is not None:
            self._status.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def _tell(self, step: str) -> None:
        if self._quiet or step == self._before:
            return
        self._before = step
        if self._status is not None:
            self._status.update(step)
        else:
            self._console.print(step, markup=False)


_spinner = _Spinner


# --- orders to the engine ---------------------------------------------------------------------------


def _order(home: Path, method: str, *arguments: Any, as_json: bool, **named: Any) -> None:
    """Have the engine do something, write down who wanted it, and say what it said."""
    from actors import up as everything

    trace = _noted(home, method, arguments, named)
    _say(str(everything.ask(home, method, *arguments, trace=trace, **named)), as_json=as_json)


def _noted(home: Path, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Write down what a person wants; the trace that all carries which it sets going."""
    import secrets

    from actors import up as everything
    from actors.logs import NodeLog

    trace = secrets.token_hex(16)
    log = NodeLog(everything.mode_folder(home), "person")
    log.warning(method, trace=trace, **({"what": arguments} if arguments else {}), **named)
    log.close()
    return trace


def _changes(assignments: list[str]) -> dict[str, Any]:
    """New values by name; None, for the default, where nothing stands behind the sign.

    Raises:
        ConfigError: There is no sign.
    """
    from hean.errors import ConfigError
    from hean.settings import assign

    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"{assignment!r} should read name=value, such as share=0.2")
        changes[name] = assign({}, [f"value={text}"])["value"] if text else None
    return changes


def _asked_to_arm(home: Path, nonce: str, phrase: str) -> "Arming":
    from actors import up as everything

    person = _person()
    trace = _noted(home, "arm", (), {"person": person, "answers": bool(nonce)})
    answer: Arming = everything.ask(home, "arm", person, nonce, phrase, trace)
    return answer


def _show_allowed(asked: "Arming") -> None:
    people().print("This sends orders to Bybit's main net, with real money.", style="bold red")
    for name, value in asked.allowed.items():
        people().print(f"  {name:<16} {value}", markup=False)
    people().print(f"  {'account':<16} {asked.account} (a fingerprint of its key)", markup=False)


def _say(said: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"said": said})
    else:
        typer.echo(said)


def _asked_to_kill(home: Path, reason: str) -> str | None:
    """What the engine said to it; None where it does not answer in some seconds, for whatever cause."""
    answers: list[str] = []
    troubles: list[str] = []

    def ask() -> None:
        from actors import up as everything
        from hean.errors import HeanError

        try:
            answers.append(str(everything.ask(home, "kill", _person(), reason, timeout_s=_KILL_ANSWER_S)))
        except HeanError as trouble:
            troubles.append(str(trouble))

    # Whatever Ray does, it is not waited for: this thread is left where it is.
    asking = threading.Thread(target=ask, name="kill", daemon=True)
    asking.start()
    asking.join(2 * _KILL_ANSWER_S)
    if answers:
        return answers[0]
    why_not = troubles[0] if troubles else f"no answer within {2 * _KILL_ANSWER_S:g} s"
    people().print(f"the engine is not asked: {why_not}", style="yellow", markup=False)
    return None


def _last_resort(home: Path, reason: str, *, as_json: bool) -> "Flattened":
    from actors import up as everything
    from actors.last_resort import out

    with _spinner(quiet=as_json) as tell:
        return out(everything.mode_folder(home.absolute()), _person(), reason, limit_s=_FLAT_S, tell=tell)


def _show_flattened(done: "Flattened") -> None:
    for name, quantity in done.closed:
        typer.echo(f"closed  {name}  {quantity:+f}")
    for words in done.left:
        typer.echo(f"left    {words}")
    if done.verified:
        typer.echo("The venue says that nothing of ours is left. The kill switch is latched until `hean reset`.")
    else:
        typer.echo("NOT everything is closed: say `hean kill` again, or close it at the venue by hand.")


def _leave(code: int) -> None:
    import os

    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1 and any(one.name == "kill" and one.is_alive() for one in threading.enumerate()):
        os._exit(code)
    raise typer.Exit(code)


def _person() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _reason(text: str) -> str:
    from hean.errors import ConfigError

    if not text.strip():
        raise ConfigError('--reason: say why, such as --reason "the feed is wrong"')
    return text.strip()


# --- printing ---------------------------------------------------------------------------------------


def _out() -> Any:
    """A console on standard output, that folds nothing where nobody watches."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def _show(said: object, shown: "RenderableType", *, as_json: bool) -> None:
    if as_json:
        _print_json(said)
    else:
        _out().print(shown)


def _print_json(said: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(said).decode())


def _print_lines(lines: Iterable[Any], *, as_json: bool) -> None:
    import msgspec

    from actors import tables

    for line in lines:
        typer.echo(msgspec.json.encode(line).decode() if as_json else tables.log_line(line))
