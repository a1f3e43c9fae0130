"""A Bybit on loopback that answers the market endpoints of V5, as badly as it is told to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

MINUTE_MS = 60_000
HOUR_MS = 3_600_000


def linear_record(symbol, *, interval_minutes=480, contract="LinearPerpetual"):
    return {
        "symbol": symbol,
        "contractType": contract,
        "status": "Trading",
        "baseCoin": symbol.removesuffix("USDT"),
        "quoteCoin": "USDT",
        "launchTime": "1584230400000",
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "50.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
        "lotSizeFilter": {"maxOrderQty": "10", "minOrderQty": "0.001", "qtyStep": "0.001", "maxMktOrderQty": "5"},
        "fundingInterval": interval_minutes,
        "upperFundingRate": "0.005",
    }


class HistoryServer:
    """Holds candles from `first_ms` until now, and funding every `funding_h` hours; `now_ms` is its clock."""

    def __init__(self, *, now_ms, first_ms, funding_h=8):
        self.now_ms = now_ms
        self.first_ms = first_ms
        self.funding_h = funding_h
        self.asked = []
        self.trouble = []  # each answered once, before anything else: "10006", "10001", "500", "404", "cut", "garbage"
        self.holes = set()
        self.symbols = ["BTCUSDT"]
        self.price = 100_000.0
        handler = type("Handler", (_Handler,), {"bybit": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, path, query):
        self.asked.append((path, query))
        code = 0
        match path.removeprefix("/v5/market/"):
            case "time":
                result = {"timeSecond": str(self.now_ms // 1000), "timeNano": str(self.now_ms * 10**6)}
            case "instruments-info":
                result = self._instruments(query)
            case "funding/history":
                if "startTime" in query and "endTime" not in query:
                    code = 10001
                result = {"category": query["category"], "list": self._funding(query)}
            case "kline":
                result = {"category": query["category"], "symbol": query["symbol"], "list": self._candles(query, 7)}
            case "mark-price-kline" | "index-price-kline" | "premium-index-price-kline":
                result = {"category": query["category"], "symbol": query["symbol"], "list": self._candles(query, 5)}
            case _:
                code, result = 10001, {}
        return {"retCode": code, "retMsg": "OK" if not code else "params error", "result": result, "time": self.now_ms}

    def _instruments(self, query):
        if "symbol" in query:
            named = [symbol for symbol in self.symbols if symbol == query["symbol"]]
            return {"category": query["category"], "list": [self._record(s) for s in named], "nextPageCursor": ""}
        page = int(query.get("cursor", "0"))
        following = str(page + 1) if page + 1 < len(self.symbols) else ""
        record = self._record(self.symbols[page])
        return {"category": query["category"], "list": [record], "nextPageCursor": following}

    def _record(self, symbol):
        return linear_record(symbol, interval_minutes=self.funding_h * 60)

    def _candles(self, query, width):
        step = {"1": 1, "5": 5, "60": 60}[query["interval"]] * MINUTE_MS
        start, end, limit = int(query["start"]), int(query["end"]), int(query.get("limit", "200"))
        first = max(-(-start // step) * step, self.first_ms)
        # The running candle is there, too.
        stamps = [at for at in range(first, min(end, self.now_ms) + 1, step) if at not in self.holes]
        return [self._candle(at, width) for at in reversed(stamps[-limit:])]

    def _candle(self, at, width):
        price = self.price + at // MINUTE_MS % 10
        return [str(at), f"{price}", f"{price + 2}", f"{price - 2}", f"{price + 1}", "1.5", "150000"][:width]

    def _funding(self, query):
        step = self.funding_h * HOUR_MS
        start, end, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
        stamps = range(max(-(-start // step) * step, self.first_ms), min(end, self.now_ms) + 1, step)
        rows = [{"symbol": query["symbol"], "fundingRate": "0.0001", "fundingRateTimestamp": str(at)} for at in stamps]
        return rows[::-1][:limit]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bybit: HistoryServer

    def do_GET(self):
        url = urlsplit(self.path)
        trouble = self.bybit.trouble.pop(0) if self.bybit.trouble else None
        if trouble == "cut":
            self.close_connection = True
            self.connection.close()
            return
        status, body = 200, b""
        if trouble in {"500", "404"}:
            status = int(trouble)
        elif trouble == "garbage":
            body = b"<html>busy</html>"
        elif trouble is not None:
            body = json.dumps({"retCode": int(trouble), "retMsg": "trouble", "result": {}, "time": 1}).encode()
        else:
            body = json.dumps(self.bybit.answer(url.path, dict(parse_qsl(url.query)))).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
