"""`hean data`, as a newcomer and as a script use it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from actors.cli_data import data_app
from hean.store.catalog import Catalog, ImportBatch, Source
from hean.store.rules import shipped
from hean.units import MINUTE
from tests.data_dir import ROOT
from tests.store.making import PERP, T0, bars, batch, candle_lines, write_csv

runner = CliRunner()


@pytest.fixture
def where(tmp_path):
    return ["--catalog", str(tmp_path / "catalog")]


@pytest.fixture
def linear():
    return ["--venue", "bybit", "--market", "linear"]


def test_an_import_says_what_it_added_and_then_that_it_is_there(tmp_path, where, linear):
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(10))
    first = runner.invoke(data_app, ["import", str(path), *linear, *where])
    assert first.exit_code == 0
    assert f"added          {path}: 10 bar-1m of BTCUSDT-LINEAR.BYBIT" in first.stdout
    again = runner.invoke(data_app, ["import", str(path), *linear, *where])
    assert again.exit_code == 0
    assert "already there" in again.stdout


def test_the_same_file_may_be_imported_as_another_market(tmp_path, where, linear):
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(10))
    runner.invoke(data_app, ["import", str(path), *linear, *where])
    told = runner.invoke(data_app, ["import", str(path), "--venue", "bybit", "--market", "spot", *where])
    assert "10 bar-1m of BTCUSDT-SPOT.BYBIT" in told.stdout


def test_a_refused_file_makes_the_status_one_and_the_others_enter(tmp_path, where, linear):
    write_csv(tmp_path / "in" / "BTCUSDT_1m.csv", candle_lines(10))
    bad = write_csv(tmp_path / "in" / "ETHUSDT_1m.csv", [*candle_lines(3), "1748736180,1,0.5,1,1,1"])
    told = runner.invoke(data_app, ["import", str(tmp_path / "in"), *linear, *where])
    assert told.exit_code == 1
    assert f"refused        {bad}: row 5: " in told.stdout
    assert "outside of low .. high" in told.stdout
    assert "hean: 1 refused, of 2 files" in told.stderr
    assert len(Catalog(tmp_path / "catalog").series()) == 1


def test_json_is_one_object_and_nothing_else(tmp_path, where, linear):
    write_csv(tmp_path / "in" / "BTCUSDT_1m.csv", candle_lines(10)[:4] + candle_lines(10)[6:])
    write_csv(tmp_path / "in" / "ETHUSDT_1m.csv", ["x,1,1,1,1,1"])
    told = runner.invoke(data_app, ["import", str(tmp_path / "in"), *linear, *where, "--json"])
    answer = json.loads(told.stdout)
    assert told.exit_code == 1
    assert [file["outcome"] for file in answer["files"]] == ["added", "refused"]
    assert answer["gaps"] == [{"kind": "bar-1m", "instrument": PERP, "holes": 1, "missing": 2}]
    for command in (["list"], ["generate", "--days", "1", "--interval", "1h"]):
        json.loads(runner.invoke(data_app, [*command, *where, "--json"]).stdout)


def test_gaps_are_told_at_import_and_listed_on_request(tmp_path, where, linear):
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(10)[:4] + candle_lines(10)[6:])
    assert "lacks 2 in 1 hole " in runner.invoke(data_app, ["import", str(path), *linear, *where]).stdout
    listed = runner.invoke(data_app, ["list", "--gaps", *where]).stdout
    assert "1 (2 missing)" in listed
    assert "2 missing from 2025-06-01T00:04:00Z to 2025-06-01T00:06:00Z" in listed


def test_half_empty_candles_need_to_be_allowed(tmp_path, where, linear):
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(100)[:5] + candle_lines(100)[90:])
    asked = ["import", str(path), *linear, *where]
    refused = runner.invoke(data_app, asked)
    assert refused.exit_code == 1
    assert "--allow-gaps" in refused.stdout
    assert runner.invoke(data_app, [*asked, "--allow-gaps"]).exit_code == 0


def test_a_file_of_no_known_format_gets_the_list_of_formats(tmp_path, where):
    path = tmp_path / "notes.txt"
    path.write_text("nothing")
    told = runner.invoke(data_app, ["import", str(path), *where])
    assert told.exit_code == 1
    assert "not recognised" in told.stdout
    assert "freqtrade feather: " in told.stdout
    assert told.stderr.strip() == "hean: 1 not recognised, of 1 file"
    beside = runner.invoke(data_app, ["import", str(tmp_path), *where])
    assert beside.exit_code == 0  # it lay about; nobody named it


def test_the_catalog_does_not_import_itself(tmp_path, where, linear):
    write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(10))
    for _ in range(2):
        told = runner.invoke(data_app, ["import", str(tmp_path), *linear, *where, "--json"])
        assert [file["file"] for file in json.loads(told.stdout)["files"]] == [str(tmp_path / "BTCUSDT_1m.csv")]


def test_a_path_that_is_not_there_is_a_usage_error(where):
    assert runner.invoke(data_app, ["import", "/no/such/file", *where]).exit_code == 2


def test_a_path_without_a_catalog_is_said_to_have_none(tmp_path, where):
    told = runner.invoke(data_app, ["list", *where])
    assert told.exit_code == 1
    assert f"no catalog at {tmp_path / 'catalog'}" in told.stderr
    assert "hean data import" in told.stderr
    assert "no catalog" in json.loads(runner.invoke(data_app, ["list", *where, "--json"]).stdout)["error"]


def test_a_catalog_without_series_says_how_to_fill_it(tmp_path, where):
    Catalog(tmp_path / "catalog").commit(ImportBatch(source=Source("rules", "0", "test"), rules=shipped()[:1]))
    told = runner.invoke(data_app, ["list", *where])
    assert told.exit_code == 0
    assert "has no series: bring data in with `hean data import`" in told.stdout


@pytest.mark.parametrize("command", [["generate", "--days", "1"], ["import", "here.csv"]])
def test_a_directory_of_somebodys_files_is_not_made_a_catalog(tmp_path, command):
    mine = write_csv(tmp_path / "notebook" / "data.csv", candle_lines(3))
    frame = tmp_path / "notebook" / "data.parquet"
    bars(3).write_parquet(frame)
    words = [str(mine) if word == "here.csv" else word for word in command]
    told = runner.invoke(data_app, [*words, "--catalog", str(tmp_path)])
    assert told.exit_code == 1
    assert "is no catalog, and holds other files" in told.stderr
    assert frame.exists()
    assert mine.exists()


def test_refused_and_not_recognised_are_counted_apart(tmp_path, where, linear):
    write_csv(tmp_path / "in" / "BTCUSDT_1m.csv", candle_lines(10))
    write_csv(tmp_path / "in" / "ETHUSDT_1m.csv", ["x,1,1,1,1,1"])
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).write_text("nothing")
    told = runner.invoke(data_app, ["import", str(tmp_path / "in"), *linear, *where])
    assert told.stderr.strip() == "hean: 1 refused, 2 not recognised, of 4 files"
    answer = json.loads(runner.invoke(data_app, ["import", str(tmp_path / "in"), *linear, *where, "--json"]).stdout)
    assert (answer["refused"], answer["not_recognised"]) == (1, 2)


def test_a_symbol_may_be_said_in_small_letters(tmp_path, where):
    path = write_csv(tmp_path / "candles.csv", candle_lines(10))
    said = ["--venue", "Bybit", "--market", "LINEAR", "--symbol", "btcusdt"]
    assert "10 bar-1m of BTCUSDT-LINEAR.BYBIT" in runner.invoke(data_app, ["import", str(path), *said, *where]).stdout


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["--venue", "kraken"], "venue 'kraken' is neither bybit nor binance"),
        (["--symbol", PERP], f"'{PERP}' is no symbol"),
    ],
)
def test_a_wrong_hint_is_refused_before_any_file_is_read(tmp_path, where, said, why):
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(10))
    told = runner.invoke(data_app, ["import", str(path), *said, *where])
    assert told.exit_code == 1
    assert why in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["--days", "3651"], 1, "lasts 3,650 days at most"),
        (["--start", "2099-12-31", "--days", "2"], 1, "ends by 2100-01-01T00:00:00Z"),
        (["--start", "9999-12-31"], 2, "outside 1970 .. 2262"),
        (["--start", "soon"], 2, "is no time"),
        (["BTCUSDT-LINEAR.BYBIT"], 1, "is no symbol"),
        (["NOPEUSDT"], 1, "no rules came with HEAN for NOPEUSDT"),
    ],
)
def test_what_cannot_be_made_up_is_refused(tmp_path, where, words, status, why):
    told = runner.invoke(data_app, ["generate", *words, *where])
    assert told.exit_code == status
    assert why in told.stderr
    assert not (tmp_path / "catalog").exists()


def test_a_catalog_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("precious")
    where = tmp_path / "file" / "catalog"
    told = runner.invoke(data_app, ["generate", "BTCUSDT", "--days", "1", "--catalog", str(where), "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout) == {"error": f"cannot read or write {where}: Not a directory"}
    assert told.stderr.splitlines()[-1].startswith("hean: cannot read or write")


def test_the_list_shows_what_is_there(tmp_path, where):
    Catalog(tmp_path / "catalog").commit(batch(("bar-1m", PERP, bars(1_234)), name="one.csv"))
    told = runner.invoke(data_app, ["list", *where]).stdout
    for shown in ("bar-1m", PERP, "1m", "1,234", "2025-06-01T00:00:00Z", "2025-06-01T20:33:00Z", "none", "one.csv"):
        assert shown in told
    (series,) = json.loads(runner.invoke(data_app, ["list", "--json", *where]).stdout)["series"]
    assert (series["rows"], series["first_ts"], series["last_ts"]) == (1_234, T0, T0 + 1_233 * MINUTE)
    assert series["sources"][0]["name"] == "one.csv"


def test_a_broken_catalog_is_one_line_and_status_one(tmp_path, where):
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "manifest.json").write_text("{")
    told = runner.invoke(data_app, ["list", *where])
    assert told.exit_code == 1
    assert told.stderr.startswith("hean: ")
    assert told.stderr.count("\n") == 1
    assert "manifest cannot be read" in json.loads(runner.invoke(data_app, ["list", "--json", *where]).stdout)["error"]


def test_a_made_up_market_is_made_listed_and_made_again(where):
    asked = ["generate", "BTCUSDT", "--days", "2", "--seed", "3", "--interval", "15m", "--trades", *where]
    made = runner.invoke(data_app, asked)
    assert made.exit_code == 0, made.output
    assert "added 192 bar-15m of BTCUSDT-LINEAR.SYNTHETIC" in made.stdout
    assert "everything was there already" in runner.invoke(data_app, asked).stdout
    assert "yes" in runner.invoke(data_app, ["list", *where]).stdout
    other = runner.invoke(data_app, [word if word != "3" else "4" for word in asked])
    assert other.exit_code == 1
    assert "contradicts the catalog" in other.stderr


def test_symbols_may_be_divided_by_commas(where):
    made = runner.invoke(data_app, ["generate", "--symbols", "BTCUSDT, solusdt", "--days", "1", *where, "--json"])
    assert {one["instrument"].split("-")[0] for one in json.loads(made.stdout)["added"]} == {"BTCUSDT", "SOLUSDT"}


def test_the_catalog_may_be_named_by_the_environment(tmp_path):
    told = runner.invoke(
        data_app, ["generate", "BTCUSDT", "--days", "1"], env={"HEAN_CATALOG": str(tmp_path / "named")}
    )
    assert told.exit_code == 0
    assert (tmp_path / "named" / "manifest.json").exists()


@pytest.mark.parametrize("command", ["import", "list", "download", "generate"])
def test_every_command_explains_itself_by_example(command):
    told = runner.invoke(data_app, [command, "--help"]).stdout
    assert f"hean data {command}" in told
    assert "Examples:" in told


def test_help_loads_neither_tables_nor_network():
    code = "import sys, actors.cli_data; print({'polars', 'pybit', 'pyarrow', 'numpy', 'requests'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
