"""Payloads that others recorded or copied from the venue's documentation; they are not part of the repository."""

import io
import json

import zstandard

from tests.data_dir import data_dir

FIXTURES = data_dir() / "bybit_fixtures"


def rest_answer(name):
    """A REST answer: three lines of what was asked, then the body."""
    lines = (FIXTURES / "bybit_net" / f"{name}.txt").read_text().splitlines()
    return json.loads("\n".join(lines[3:]))


def pushed(name):
    """The message of a subscription, after the handshake."""
    text = (FIXTURES / "bybit_net" / f"{name}.txt").read_text()
    return json.loads(text[text.index("\n=") + 2 :])


def archived_book():
    """Fifty messages of one order book, in a row."""
    text = (FIXTURES / "nautilus_orderbook" / "2024-12-01_XRPUSDT_ob500.data").read_text()
    return [json.loads(line) for line in text.splitlines() if line]


def heard_on_sockets():
    """(category, message) of 42 s of real sockets."""
    path = data_dir() / "raw" / "bybit-ws-v5" / "BYBIT.jsonl.zst"
    addresses = {}
    with path.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as plain:
        for line in io.TextIOWrapper(plain, encoding="utf-8"):
            entry = json.loads(line)
            if entry["t"] == "connect":
                addresses[entry["conn"]] = entry["addr"].rsplit("/", 1)[1]
            elif entry["t"] == "recv":
                yield addresses[entry["conn"]], json.loads(entry["data"])
