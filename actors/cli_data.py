# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults; typer shows docstrings as they stand
"""`hean data`: bring market data into the catalog, fetch it, make it up, and look at what is there."""

import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.console import people, progress_bar, saying_errors
from hean.errors import DataError
from hean.units import DAY, parse_time, utc

if TYPE_CHECKING:
    from hean.store.catalog import Catalog, Committed, Series
    from hean.store.importers import Outcome

data_app = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Market data: import files, download from Bybit, make up a market, list what is there.",
    rich_markup_mode=None,
)

CatalogPath = Annotated[
    Path, typer.Option("--catalog", envvar="HEAN_CATALOG", help="Directory of the catalog; made if it is not there.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Symbols = Annotated[
    str | None, typer.Option("--symbols", help="Symbols, divided by commas, instead of one by one.", show_default=False)
]
_DEFAULT = Path("catalog")
_LISTED = 20
_DAYS_BACK = 90
# What the carry strategies are played on; the rules come with every download.
_KINDS = ("bar-1m", "mark-1m", "funding")


class Market(StrEnum):
    """What a venue calls a category, in small letters."""

    SPOT = "spot"
    LINEAR = "linear"
    INVERSE = "inverse"


@data_app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files, or directories to look through.", exists=True)],
    catalog: CatalogPath = _DEFAULT,
    venue: Annotated[
        str | None, typer.Option(help="Venue of files that do not say it: bybit or binance.", show_default=False)
    ] = None,
    market: Annotated[
        Market | None,
        typer.Option(help="Market of files that do not say it.", show_default=False, case_sensitive=False),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="Symbol of a file that does not say it, such as BTCUSDT.", show_default=False)
    ] = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Take candles even if more than half of them are missing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Import recorded data of any known format; what is there already is not added twice.

    Each file enters wholly or not at all. A file that is refused does not stop the others, but makes the
    exit status 1.

    Examples:

        hean data import ~/Downloads/BTCUSD2019-10-01.csv.gz

        hean data import recordings/ --catalog /data/hean

        hean data import BTCUSDT_1m.csv --venue bybit --market linear
    """
    with saying_errors(as_json=as_json):
        from rich.progress import track

        from hean.instruments import Category
        from hean.store.catalog import Catalog
        from hean.store.importers import Hints, files_under, import_file

        hints = Hints(
            venue=venue,
            market=Category(market.value.upper()) if market is not None else None,
            symbol=symbol,
            allow_gaps=allow_gaps,
        )
        store = Catalog(catalog)
        store.must_be_writable()
        own = catalog.resolve()
        files = [file for file in files_under(paths) if own not in file.resolve().parents]
        outcomes = [import_file(store, file, hints) for file in track(files, description="importing", **progress_bar())]
        named = {str(path) for path in paths}
        _tell_import(store, outcomes, named=named, as_json=as_json)


@data_app.command("list")
def list_(
    catalog: CatalogPath = _DEFAULT,
    gaps: Annotated[bool, typer.Option("--gaps", help="List the holes of each series, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every series of the catalog: how much, from when to when, what is missing, and where it comes from.

    Examples:

        hean data list

        hean data list --gaps

        hean data list --json | jq '.series[] | select(.synthetic)'
    """
    with saying_errors(as_json=as_json):
        from hean.store.catalog import Catalog

        store = Catalog(catalog)
        if not store.exists:
            raise DataError(
                f"no catalog at {catalog}",
                remedy="name another with --catalog, or begin one with `hean data import`, `download` or `generate`",
            )
        series = store.series()
        if as_json:
            typer.echo(json.dumps({"catalog": str(catalog), "series": [_as_object(one) for one in series]}))
            return
        if not series:
            typer.echo(f"{catalog} has no series: bring data in with `hean data import`, `download` or `generate`")
            return
        _table(series)
        if gaps:
            for one in series:
                _print_gaps(one)


@data_app.command()
def download(
    instruments: Annotated[
        list[str] | None, typer.Argument(help="Symbols such as BTCUSDT, or instruments such as BTCUSDT-SPOT.BYBIT.")
    ] = None,
    symbols: Symbols = None,
    market: Annotated[Market, typer.Option(help="Market of plain symbols.", case_sensitive=False)] = Market.LINEAR,
    start: Annotated[
        str | None,
        typer.Option(
            help=f"First day or time, UTC: 2025-06-01 or 2025-06-01T12:00. [default: {_DAYS_BACK} days before the end]",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="The day or time it ends before, UTC. [default: now]", show_default=False)
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="bar-1m, mark-1h, index-5m, premium-1m, funding, rules, …; may be given more than once. "
            f"[default: {', '.join(_KINDS)}; of spot {_KINDS[0]}]",
            show_default=False,
        ),
    ] = None,
    catalog: CatalogPath = _DEFAULT,
    endpoint: Annotated[
        str | None, typer.Option(help="Address to ask instead of Bybit's, such as http://127.0.0.1:8080.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download history from Bybit; what the catalog has already is not fetched again.

    The rules of the instruments are recorded, too. Each month is kept as soon as it is complete: after an
    interruption, give the same command again.

    Examples:

        hean data download BTCUSDT

        hean data download BTCUSDT --market spot --start 2025-06-01 --end 2025-07-01

        hean data download BTCUSDT ETHUSDT --kind bar-15m --kind mark-1h --kind funding --start 2024-01-01

        hean data download --symbols BTCUSDT,SOLUSDT --market spot --kind rules
    """
    since = _instant(start, "--start") if start is not None else None
    until = _instant(end, "--end") if end is not None else None
    names = dict.fromkeys(_full_name(name, market) for name in _named(instruments, symbols))
    if not names:
        raise typer.BadParameter("name at least one", param_hint="INSTRUMENTS")
    with saying_errors(as_json=as_json):
        import time  # a downloader waits; only components may not

        from rich.progress import Progress

        from actors.gateways.bybit_history import BybitHistory, Throttle, must_be_downloadable, public_session
        from actors.gateways.bybit_history import download as fetch
        from hean.store.catalog import Catalog

        wanted = [(kind_name, name) for name in names for kind_name in kind or _kinds_of(name)]
        for kind_name, name in wanted:
            must_be_downloadable(kind_name, name)
        store = Catalog(catalog)
        store.must_be_writable()
        throttle = Throttle(clock=time.monotonic, sleep=time.sleep)
        history = BybitHistory(public_session(endpoint), throttle)
        now = history.server_time()
        until = now if until is None else min(until, now)
        if since is None:
            since = until // DAY * DAY - _DAYS_BACK * DAY
        if since >= until:
            raise DataError("there is nothing between --start and --end", remedy="let --start lie before --end and now")
        added: list[Committed] = []
        with Progress(**progress_bar()) as progress:
            for kind_name, name in wanted:
                shown = progress.add_task(f"{kind_name} {name}", total=None)
                on = _advance(progress.update, shown)
                added.append(fetch(history, store, kind_name, name, start=since, end=until, progress=on))
        _tell_added(store, added, as_json=as_json)


@data_app.command()
def generate(
    instruments: Annotated[
        list[str] | None, typer.Argument(metavar="[SYMBOLS]...", help="Symbols to make up. [default: BTCUSDT ETHUSDT]")
    ] = None,
    symbols: Symbols = None,
    start: Annotated[str, typer.Option(help="First day, UTC.")] = "2025-01-01",
    days: Annotated[int, typer.Option(help="How many days; 3650 at most.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="The same seed makes the same market.", min=0)] = 1,
    interval: Annotated[str, typer.Option(help="Length of a bar: 1m, 3m, 5m, 15m, 30m or 1h.")] = "1m",
    trades: Annotated[bool, typer.Option("--trades", help="Make trades, too: those the bars are made of.")] = False,
    catalog: CatalogPath = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Make up a market: spot, perpetual, mark, index, premium and funding of each symbol.

    It has a venue of its own, BTCUSDT-LINEAR.SYNTHETIC, and is marked as synthetic everywhere. It is for trying
    HEAN without any data, and proves nothing about a real market.

    Examples:

        hean data generate

        hean data generate BTCUSDT SOLUSDT --days 90 --seed 7 --trades
    """
    since = _instant(start, "--start")
    with saying_errors(as_json=as_json):
        from rich.progress import track

        from hean.store.catalog import Catalog
        from hean.store.synthetic import SyntheticMarket
        from hean.store.synthetic import generate as make_up

        names = tuple(_named(instruments, symbols)) or ("BTCUSDT", "ETHUSDT")
        market = SyntheticMarket(symbols=names, start=since, days=days, seed=seed, interval=interval, trades=trades)
        store = Catalog(catalog)
        store.must_be_writable()
        batches = track(make_up(market), description="making up", total=len(names), **progress_bar())
        _tell_added(store, [store.commit(batch) for batch in batches], as_json=as_json)


def _tell_import(catalog: "Catalog", outcomes: "Sequence[Outcome]", *, named: set[str], as_json: bool) -> None:
    refused = [one for one in outcomes if one.refusal is not None]
    unknown = [one for one in outcomes if one.refusal is None and one.format is None]
    # A directory may hold anything; a file named on the command line was meant to be imported.
    failed = bool(refused) or any(one.file in named for one in unknown)
    told = [_outcome_object(one) for one in outcomes]
    touched = {key for one in outcomes if one.committed is not None for key in one.committed.added}
    holed = [one for one in catalog.series() if (one.kind, one.instrument) in touched and one.gaps.holes]
    if as_json:
        gaps = [
            {"kind": one.kind, "instrument": one.instrument, "holes": one.gaps.holes, "missing": one.gaps.missing}
            for one in holed
        ]
        rows = sum(one.committed.rows for one in outcomes if one.committed is not None)
        counts = {"refused": len(refused), "not_recognised": len(unknown)}
        typer.echo(json.dumps({"files": told, "rows": rows, **counts, "gaps": gaps}))
    else:
        for one in told:
            typer.echo(_outcome_line(one))
        for series in holed:
            typer.echo(
                f"gaps: {series.kind} of {series.instrument} lacks {series.gaps.missing:,} "
                f"in {_counted(series.gaps.holes, 'hole')} (`hean data list --gaps` lists them)"
            )
        if unknown:
            from hean.store.importers import FORMATS

            typer.echo("known formats:")
            for form in FORMATS:
                typer.echo(f"  {form.name}: {form.expects}")
        if not outcomes:
            typer.echo("no files there")
    if failed:
        counted = ((len(refused), "refused"), (len(unknown), "not recognised"))
        said = ", ".join(f"{count} {what}" for count, what in counted if count)
        people().print(f"hean: {said}, of {_counted(len(outcomes), 'file')}", style="red")
        raise typer.Exit(code=1)


def _outcome_object(outcome: "Outcome") -> dict[str, Any]:
    told: dict[str, Any] = {"file": outcome.file, "format": outcome.format}
    if outcome.refusal is not None:
        refusal = outcome.refusal
        told |= {"outcome": "refused", "reason": refusal.reason, "row": refusal.row, "remedy": refusal.remedy}
    elif outcome.format is None:
        told |= {"outcome": "not recognised"}
    elif outcome.already_there:
        told |= {"outcome": "already there", "rows": 0}
    elif outcome.committed is not None:
        added = [
            {"kind": kind, "instrument": instrument, "rows": rows}
            for (kind, instrument), rows in outcome.committed.added.items()
        ]
        told |= {"outcome": "added", "rows": outcome.committed.rows, "series": added, "rules": outcome.committed.rules}
    return told | {"note": outcome.note}


def _outcome_line(told: dict[str, Any]) -> str:
    note = f"; {told['note']}" if told["note"] else ""
    match told["outcome"]:
        case "refused":
            row = f" row {told['row']}:" if told["row"] is not None else ""
            remedy = f" ({told['remedy']})" if told["remedy"] else ""
            return f"refused        {told['file']}:{row} {told['reason']}{remedy}"
        case "not recognised":
            return f"not recognised {told['file']}"
        case "already there":
            return f"already there  {told['file']}"
        case _:
            series = told["series"]
            what = ", ".join(f"{one['rows']:,} {one['kind']} of {one['instrument']}" for one in series[:3])
            more = f" and {len(series) - 3} more series" if len(series) > 3 else ""
            rules = f", rules of {_counted(told['rules'], 'instrument')}" if told["rules"] else ""
            return f"added          {told['file']}: {what}{more}{rules}{note}"


def _tell_added(catalog: "Catalog", committed: "Sequence[Committed]", *, as_json: bool) -> None:
    added = [
        {"kind": kind, "instrument": instrument, "rows": rows}
        for one in committed
        for (kind, instrument), rows in one.added.items()
    ]
    if as_json:
        typer.echo(
            json.dumps({"catalog": str(catalog.root), "added": added, "rules": sum(one.rules for one in committed)})
        )
        return
    for one in added:
        typer.echo(f"added {one['rows']:,} {one['kind']} of {one['instrument']}")
    rules = sum(one.rules for one in committed)
    if rules:
        typer.echo(f"recorded the rules of {_counted(rules, 'instrument')}")
    if not rules and not any(one["rows"] for one in added):
        typer.echo("everything was there already")


def _table(series: "Sequence[Series]") -> None:
    from rich.console import Console
    from rich.table import Table

    from hean.store.kinds import interval_name

    table = Table(box=None, pad_edge=False)
    for title in (
        "kind",
        "instrument",
        "interval",
        "rows",
        "first",
        "last",
        "gaps",
        "synthetic",
        "sources",
    ):
        table.add_column(title, justify="right" if title == "rows" else "left", no_wrap=title != "sources")
    for one in series:
        missing = f"{one.gaps.holes:,} ({one.gaps.missing:,} missing)" if one.gaps.holes else "none"
        names = [source.name for source in one.sources]
        table.add_row(
            one.kind,
            one.instrument,
            interval_name(one.interval) if one.interval is not None else "",
            f"{one.rows:,}",
            utc(one.first_ts),
            utc(one.last_ts),
            missing if one.interval is not None or one.kind == "funding" else "",
            "yes" if one.synthetic else "",
            names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print_gaps(series: "Series") -> None:
    for gap in series.gaps.listed[:_LISTED]:
        typer.echo(
            f"{series.kind} of {series.instrument}: {gap.missing:,} missing from {utc(gap.from_ts)} to {utc(gap.to_ts)}"
        )
    if series.gaps.holes > _LISTED:
        typer.echo(
            f"{series.kind} of {series.instrument}: {series.gaps.holes - _LISTED:,} more holes (--json has more)"
        )


def _as_object(series: "Series") -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(series)
    return told | {"rows": series.rows, "first_ts": series.first_ts, "last_ts": series.last_ts}


def _named(one_by_one: list[str] | None, divided_by_commas: str | None) -> list[str]:
    told = [*(one_by_one or ()), *(divided_by_commas or "").split(",")]
    return list(dict.fromkeys(name.strip().upper() for name in told if name.strip()))


def _full_name(name: str, market: Market) -> str:
    return name if "-" in name else f"{name}-{market.upper()}.BYBIT"


def _kinds_of(instrument: str) -> tuple[str, ...]:
    from hean.instruments import Category, category_of

    return _KINDS[:1] if category_of(instrument) is Category.SPOT else _KINDS


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _instant(text: str, option: str) -> int:
    """Read a day or a time as UTC.

    Raises:
        BadParameter: It is neither; the command line was wrong, so the exit status is 2.
    """
    try:
        return parse_time(text)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint=option) from None


def _advance(update: Callable[..., None], task: Any) -> Callable[[int, int], None]:
    return lambda done, months: update(task, completed=done, total=months)
