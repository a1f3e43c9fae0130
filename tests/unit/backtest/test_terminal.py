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


def test_unknown_is_said():
    assert [line.split()[-1] for line in printed(empty_run()).splitlines() if "hit rate" in line] == ["unknown"]


def test_made_up_data_is_stamped_first():
    assert "SYNTHETIC" in printed(impulse_run(trades=5, synthetic=True)).splitlines()[0]


def test_names_are_not_read_as_markup():
    run = impulse_run(trades=5)
    named = msgspec.structs.replace(run.strategies[0], name="[red]odd[/]", notes=("[link]",))

    assert "[red]odd[/]" in printed(msgspec.structs.replace(run, strategies=(named,)))
