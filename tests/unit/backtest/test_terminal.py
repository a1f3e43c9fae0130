import io

import msgspec
import pytest
from rich.console import Console

from actors.terminal import print_summary
from tests.unit.backtest.make import carry_run, empty_run, impulse_run


def printed(run, width=100):
    out = io.StringIO()
    print_summary(run, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("run", [impulse_run, carry_run, empty_run])
def test_the_summary_has_the_figures_that_matter(run):
    of = run()
    text = printed(of)

    assert of.strategies[0].name in text
    assert f"{of.equity_final:,.2f}" in text
    assert of.result_hash in text
    assert all(benchmark.name in text for benchmark in of.benchmarks)


def test_a_strategy_that_never_spoke_says_where_it_was_stopped():
    run = carry_run()
    gates = (("hours", 2_881), ("mean above 2 bp", 0), ("basis", 0))
    silent = msgspec.structs.replace(run.strategies[0].funnel, signals=0, gates=gates)
    run = msgspec.structs.replace(run, strategies=(msgspec.structs.replace(run.strategies[0], funnel=silent),))

    assert "did not trade: of 2,881 that came so far none passed 'mean above 2 bp'" in " ".join(printed(run).split())


def test_unknown_is_said():
    assert [line.split()[-1] for line in printed(empty_run()).splitlines() if "hit rate" in line] == ["unknown"]


def test_made_up_data_is_stamped_first():
    assert "SYNTHETIC" in printed(impulse_run(trades=5, synthetic=True)).splitlines()[0]


def test_names_are_not_read_as_markup():
    run = impulse_run(trades=5)
    named = msgspec.structs.replace(run.strategies[0], name="[red]odd[/]", notes=("[link]",))

    assert "[red]odd[/]" in printed(msgspec.structs.replace(run, strategies=(named,)))


@pytest.mark.parametrize("width", [40, 55, 69, 80, 120])
@pytest.mark.parametrize("run", [impulse_run, carry_run])
def test_no_width_cuts_a_figure(run, width):
    of = run()
    text = printed(of, width=width)

    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    for strategy in of.strategies:
        for part in ("price", "fees", "slippage", "net"):
            assert f"{getattr(strategy.pnl, part):+,.2f}".replace("+0.00", "0.00") in text
    assert f"{of.equity_final:,.2f}" in text
    lines = [line for line in text.splitlines() if of.result_hash not in line]
    assert max(len(line.rstrip()) for line in lines) <= width


def test_a_short_line_has_one_figure():
    line = next(line for line in printed(impulse_run(), width=50).splitlines() if "round trips" in line)
    assert line.split()[:2] == ["round", "trips"]
