"""Whatever is in a file, importing it has an outcome; a damaged file never enters."""

import io
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather

from hean.errors import DataError
from hean.instruments import Category
from hean.store.catalog import Catalog
from hean.store.importers import Hints, import_file, read
from tests.store.making import T0, candle_lines, write_gzip

T0_S = T0 // 10**9
T0_MS = T0 // 10**6
BYBIT_LINEAR = Hints(venue="bybit", market=Category.LINEAR)
ARCHIVE = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional"


def test_a_file_cut_short_is_refused_and_nothing_of_it_enters(tmp_path):
    catalog = Catalog(tmp_path / "catalog")
    path = write_gzip(tmp_path / "BTCUSDT2025-06-01.csv.gz", ARCHIVE + f"\n{T0_S}.5,BTCUSDT,Buy,1,1,P,a,1,1,1\n")
    path.write_bytes(path.read_bytes()[:-12])
    outcome = import_file(catalog, path)
    assert "cannot be unpacked" in outcome.refusal.reason
    assert catalog.series() == []


@pytest.mark.parametrize(
    "junk", [b"", b"\x00\x01\x02", b"PK\x03\x04broken", b"PAR1", b"\x28\xb5\x2f\xfdxx", b"\xff\xfe{}", b"{", b"[]"]
)
@pytest.mark.parametrize(
    "name",
    ["x.csv", "x.json", "BTC_USDT-5m.feather", "20221213_trade.zip", "bybit.linear.BTCUSDT.kline-1m.x.parquet", "x.gz"],
)
def test_rubbish_is_an_outcome_never_an_accident(tmp_path, name, junk):
    path = tmp_path / name
    path.write_bytes(junk)
    outcome = import_file(Catalog(tmp_path / "catalog"), path)
    assert outcome.committed is None


WHOLE = {
    "BTCUSDT_1m.csv": "\n".join(["timestamp,open,high,low,close,volume", *candle_lines(20)]),
    "BTCUSDT2025-06-01.csv": f"{ARCHIVE}\n{T0_S}.5,BTCUSDT,Buy,1,1,P,a,1,1,1\n{T0_S}.25,BTCUSDT,Sell,1,1,P,b,1,1,1",
    "BTCUSDT_1_2025-06-01_2025-06-30.csv": "2025.06.01 00:00,1,1,1,1,1\n2025.06.01 00:01,1,1,1,1,1",
    "candles.json": json.dumps(
        {"retCode": 0, "result": {"symbol": "BTCUSDT", "category": "linear", "list": [
            [str(T0_MS + i * 60_000), "1", "1", "1", "1", "1", "1"] for i in (2, 1, 0)]}, "time": T0_MS * 2}
    ),
    "x_ob500.data": json.dumps(
        {"topic": "orderbook.500.XRPUSDT", "type": "snapshot", "ts": T0_MS, "cts": T0_MS,
         "data": {"s": "XRPUSDT", "b": [["1", "1"]], "a": [["2", "1"]], "u": 1, "seq": 1}}
    ),
    "x.gz": f'{T0} {{"stream":"a@trade","data":{{"E":{T0_MS},"T":{T0_MS},"s":"A","t":1,"p":"1","q":"1","m":true}}}}',
}  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_to_a_file_importing_it_has_an_outcome(tmp_path, data):
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    content = bytearray(WHOLE[name].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        gone = data.draw(st.integers(0, 20))
        content[at : at + gone] = data.draw(
            st.binary(max_size=5) | st.sampled_from([b"-", b"9" * 20, b"null", b"\n", b","])
        )
    path = tmp_path / name
    path.write_bytes(bytes(content))
    outcome = import_file(Catalog(tmp_path / "catalog"), path, BYBIT_LINEAR)
    assert outcome.refusal is None or outcome.refusal.reason


def test_arrow_rubbish_is_refused(tmp_path):
    path = tmp_path / "bybit" / "BTC_USDT-5m.feather"
    path.parent.mkdir()
    sink = io.BytesIO()
    feather.write_feather(pa.table({"x": [1]}), sink)
    path.write_bytes(sink.getvalue())
    with pytest.raises(DataError, match="is not a table of date"):
        read(path)
