# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults; typer shows docstrings as they stand
"""`hean process`: what is done once and has an end: smoke test, environment scan, backfill, backtest, evaluation."""

import getpass
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.console import saying_errors
from hean.errors import ConfigError, HeanError

if TYPE_CHECKING:
    from hean.processes.runs import RunView

process_app = typer.Typer(
    name="process",
    no_args_is_help=True,
    help="Processes of the running engine: start one, see how it goes, cancel it.",
    rich_markup_mode=None,
)

Home = Annotated[Path, typer.Option("--home", envvar="HEAN_HOME", help="Directory that HEAN keeps its things in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
RunId = Annotated[str, typer.Argument(help="The run, as `hean process list` shows it.")]
_HOME = Path(".hean")
_LISTED = 20
_LOOK_S = 0.5


@process_app.command("list")
def list_(
    home: Home = _HOME,
    everything: Annotated[bool, typer.Option("--all", help="List all that are known, not only the newest.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the processes there are, and their newest runs."""
    with saying_errors(as_json=as_json):
        factory = _Factory(home)
        known, runs = factory.ask("processes"), factory.ask("runs")
        shown = runs if everything else runs[:_LISTED]
        if as_json:
            _print_json({"processes": known, "runs": shown})
            return
        for one in known:
            typer.echo(f"{one.name:18} {one.about}")
        typer.echo("")
        if not runs:
            typer.echo("nothing was run yet: hean process start environment-scan")
        for run in shown:
            typer.echo(_line(run))
        if len(runs) > len(shown):
            typer.echo(f"{len(runs) - len(shown)} more: --all lists them")


@process_app.command()
def start(
    process: Annotated[str, typer.Argument(help="Which process, such as environment-scan.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What to do it with: symbols=BTCUSDT,ETHUSDT start=2026-01-01")
    ] = None,
    home: Home = _HOME,
    key: Annotated[
        str, typer.Option("--key", help="A name for this run: asked for again, it goes on instead of beginning anew.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is over; the status is 1 if it failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a process.

    Examples:

      hean process start smoke-test --wait

      hean process start environment-scan symbols=BTCUSDT,ETHUSDT

      hean process start backfill symbols=BTCUSDT start=2026-01-01 end=2026-03-01 --key first-quarter

      hean process start backtest strategy=impulse symbols=BTCUSDT strategy.trigger=4

      hean process start evaluate strategy=impulse start=2025-01-01 end=2026-01-01 param.strategy.trigger=2,2.5,3
    """
    with saying_errors(as_json=as_json):
        given = _arguments(arguments or [])
        factory = _Factory(home)
        run_id = factory.ask("request", process, given, key)
        run = factory.ask("run", run_id)
        while wait and not _is_over(run):
            time.sleep(_LOOK_S)
            run = factory.ask("run", run_id)
        _show(run, as_json=as_json)
        if wait and run.status != "COMPLETED":
            raise typer.Exit(1)


@process_app.command()
def status(run: RunId, home: Home = _HOME, as_json: AsJson = False) -> None:
    """Show a run: each step, what it found, and what the run waits for."""
    with saying_errors(as_json=as_json):
        _show(_Factory(home).ask("run", run), as_json=as_json)


@process_app.command()
def cancel(
    run: RunId,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the run.", prompt=True)],
    home: Home = _HOME,
    person: Annotated[str, typer.Option("--person", help="Who; the user of this machine where not given.")] = "",
    as_json: AsJson = False,
) -> None:
    """End a run before it is done."""
    with saying_errors(as_json=as_json):
        _show(_Factory(home).ask("cancel", run, person or getpass.getuser(), reason), as_json=as_json)


@process_app.command()
def decide(
    run: RunId,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the run.", prompt=True)],
    again: Annotated[bool, typer.Option("--again/--give-up", help="Do the step again, or give the run up.")],
    home: Home = _HOME,
    person: Annotated[str, typer.Option("--person", help="Who; the user of this machine where not given.")] = "",
    as_json: AsJson = False,
) -> None:
    """Answer a run that waits for a person: nobody else can know how far its step came."""
    with saying_errors(as_json=as_json):
        who = person or getpass.getuser()
        _show(_Factory(home).ask("decide", run, who, reason, again=again), as_json=as_json)


@process_app.command()
def environment(home: Home = _HOME, as_json: AsJson = False) -> None:
    """Show what the scans have found: each fact with its age, and whether it still holds."""
    with saying_errors(as_json=as_json):
        seen = _Factory(home).ask("environment")
        if as_json:
            _print_json({"environment": seen})
            return
        if not seen.facts:
            typer.echo("nothing was found yet: hean process start environment-scan")
        for fact in seen.facts.values():
            value = "unknown" if fact.value is None else fact.value
            note = "" if fact.freshness == "current" else f" [{fact.freshness}]"
            why = f": {fact.reason}" if fact.reason else ""
            typer.echo(f"{fact.name:48} {value:>20}{note}  {_age(fact.age_s)} old, {fact.source}{why}")


class _Factory:
    """The running engine's factory, asked from outside.

    Raises:
        HeanError: Ray is not running here, or it runs no factory.
    """

    def __init__(self, home: Path) -> None:
        from actors import cluster

        cluster.connect(home)
        import ray

        self._ray = ray
        try:
            self._actor = ray.get_actor("factory", namespace=cluster.NAMESPACE)
        except ValueError:
            raise ConfigError("no engine runs here: start it with `hean up`") from None

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Ask, and raise what it raises as if it were here.

        Raises:
            HeanError: The factory refuses, or does not answer.
        """
        ray = self._ray
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments, **named), timeout=30)
        except ray.exceptions.RayTaskError as refusal:
            cause = refusal.cause
            if isinstance(cause, HeanError):
                raise cause from None
            raise
        except ray.exceptions.GetTimeoutError:
            raise HeanError("the factory does not answer within 30 s: look at `hean logs`") from None
        except ray.exceptions.RayActorError:
            raise HeanError("the factory has died: the engine begins it anew, try again in a few seconds") from None


def _arguments(told: list[str]) -> dict[str, str]:
    given = {}
    for one in told:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise ConfigError(f"{one!r} should read name=value, such as symbols=BTCUSDT")
        if name in given:
            raise ConfigError(f"{name} is given twice")
        given[name] = value
    return given


def _is_over(run: "RunView") -> bool:
    from hean.processes.runs import OVER

    return run.status in OVER


def _show(run: "RunView", *, as_json: bool) -> None:
    if as_json:
        _print_json({"run": run})
        return
    typer.echo(_line(run))
    for step in run.steps:
        tries = f", attempt {step.attempts}" if step.attempts > 1 else ""
        took = ""
        if step.ts_began is not None and step.ts_ended is not None:
            took = f" in {(step.ts_ended - step.ts_began) / 1e9:.1f} s"
        why = f": {step.reason}" if step.reason else ""
        typer.echo(f"  {step.name:32} {step.status}{tries}{took}{why}")
        if isinstance(step.output, dict):
            for name, value in step.output.items():
                if not isinstance(value, dict | list):
                    typer.echo(f"    {name}: {value}")


def _line(run: "RunView") -> str:
    from hean.units import minute

    done = sum(step.status == "FINISHED" for step in run.steps)
    more = f" waits for {run.waits_for}" if run.waits_for else f" {run.reason}" if run.reason else ""
    return f"{run.run_id:28} {run.status:10} {done}/{len(run.steps)} steps, asked for {minute(run.ts_asked)} UTC{more}"


def _age(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_json(told: dict[str, Any]) -> None:
    import msgspec

    typer.echo(json.dumps(msgspec.to_builtins(told)))
