"""Who is let in: signatures over the bytes as they came, the time window, rights, addresses; in the venue's order of checks."""

import json
import time

import pytest

from actors.exchange.auth import ApiKey, Keys
from hean.errors import ConfigError
from hean.exchange.refusals import Refused
from hean.units import MILLISECOND
from tests.exchange.conftest import ANN, ANN_RSA, FAR_AWAY, NO_SPOT, READER, Venue, answered, key, sign, signed

NOW = 1_700_000_000_000 * MILLISECOND
INFO = "/v5/account/info"
CREATE = "/v5/order/create"
ORDER = {
    "category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.01", "price": "59500"
}  # fmt: skip


@pytest.fixture
def keys():
    return Keys([ANN, ANN_RSA], lambda: NOW)


@pytest.mark.parametrize("signer", [ANN, ANN_RSA], ids=["HMAC", "RSA"])
class TestSignedBytes:
    @pytest.mark.parametrize(
        "query",
        [
            "",
            "category=linear&symbol=BTCUSDT",
            "symbol=BTCUSDT&category=linear",
            "category=linear&cursor=page%3A12%2C7&symbol=BTCUSDT",
            "category=linear&symbol=BTCUSDT&unknown=a%20b+c",
            "symbol=BTCUSDT&category=linear&symbol=ETHUSDT",
        ],
    )
    def test_a_query_counts_as_it_was_sent(self, shared, signer, query):
        answer = shared.raw_get(INFO, query, signer)

        assert answer["retCode"] == 0, answer

    def test_a_bare_question_mark_is_an_empty_query(self, shared, signer):
        answer = answered(shared.send("GET", f"{INFO}?", headers=signed(signer, b"")))

        assert answer["retCode"] == 0, answer

    @pytest.mark.parametrize(
        "body",
        [
            json.dumps(ORDER).encode(),
            json.dumps(ORDER, separators=(",", ":")).encode(),
            b"\n" + json.dumps(ORDER, indent=2).encode() + b"\r\n",
            json.dumps({**ORDER, "note": "Grüße"}, ensure_ascii=False).encode(),
        ],
        ids=["as pybit", "compact", "with lines", "UTF-8"],
    )
    def test_a_body_counts_as_it_was_sent(self, shared, signer, body):
        answer = shared.raw_post(CREATE, body, signer)

        assert answer["retCode"] == 0, answer

    def test_another_order_of_the_same_parameters_is_another_signature(self, shared, signer):
        headers = signed(signer, b"category=linear&symbol=BTCUSDT")

        answer = answered(shared.send("GET", f"{INFO}?symbol=BTCUSDT&category=linear", headers=headers))

        assert answer["retCode"] == 10004

    def test_an_altered_body_is_refused(self, shared, signer):
        headers = signed(signer, json.dumps(ORDER).encode())

        answer = answered(shared.send("POST", CREATE, json.dumps({**ORDER, "qty": "1"}).encode(), headers))

        assert answer["retCode"] == 10004


class TestRefusals:
    @pytest.mark.parametrize("missing", ["X-BAPI-API-KEY", "X-BAPI-TIMESTAMP", "X-BAPI-SIGN"])
    def test_a_missing_header_is_named(self, shared, missing):
        headers = {name: value for name, value in signed(ANN, b"").items() if name != missing}

        answer = answered(shared.send("GET", INFO, headers=headers))

        assert answer["retCode"] == 10001
        assert "openapi sign params error!" in answer["retMsg"]

    def test_an_unknown_key(self, shared):
        answer = shared.get(INFO, key("nobody"))

        assert (answer["retCode"], answer["retMsg"]) == (10003, "API key is invalid.")

    def test_a_wrong_secret_is_told_what_was_to_be_signed(self, shared):
        stamp = time.time_ns() // MILLISECOND

        answer = shared.raw_get(INFO, "a=1", ANN, at_ms=stamp, signature="00" * 32)

        assert answer["retCode"] == 10004
        assert answer["retMsg"] == f"error sign! origin_string[{stamp}ann-key5000a=1]"

    @pytest.mark.parametrize("signature", ["", "ä", "0" * 64, "AAAA", "=" * 9], ids=repr)
    @pytest.mark.parametrize("signer", [ANN, ANN_RSA], ids=["HMAC", "RSA"])
    def test_what_is_no_signature_is_not_taken_for_one(self, signer, signature):
        assert not signer.signed(b"text", signature.encode())

    def test_a_read_only_key_may_look(self, shared):
        assert shared.get(INFO, READER)["retCode"] == 0

    @pytest.mark.parametrize("path", [CREATE, "/v5/order/cancel-all", "/v5/position/set-leverage"])
    def test_a_read_only_key_may_not_write(self, shared, path):
        assert shared.post(path, READER, **ORDER)["retCode"] == 10005

    def test_a_key_without_the_right_to_spot_has_none(self, shared):
        assert shared.get("/v5/order/realtime", NO_SPOT, category="spot")["retCode"] == 10005
        assert shared.get("/v5/order/realtime", NO_SPOT, category="linear", symbol="BTCUSDT")["retCode"] == 0

    def test_a_key_bound_to_another_address(self, shared):
        assert shared.get(INFO, FAR_AWAY)["retCode"] == 10010

    @pytest.mark.parametrize(
        ("ips", "comes"),
        [((), True), (("127.0.0.1",), True), (("127.0.0.0/8", "::1"), True), (("10.0.0.1",), False), (("x",), False)],
    )
    def test_bound_addresses(self, ips, comes):
        assert key("bound", ips=ips).comes_from("127.0.0.1") is comes

    def test_the_order_of_checks(self, shared):
        """Each request is wrong in everything that is checked later, too."""
        unknown = key("nobody")
        old = {"at_ms": 1, "signature": "bad"}

        codes = [
            answered(shared.send("POST", CREATE, b"{", {"X-BAPI-SIGN": "bad"}))["retCode"],
            shared.raw_post(CREATE, b"{", unknown, **old)["retCode"],
            shared.raw_post(CREATE, b"{", READER, **old)["retCode"],
            shared.raw_post(CREATE, b"{", READER, signature="bad")["retCode"],
            shared.post(CREATE, READER)["retCode"],
            shared.post(CREATE, ANN)["retCode"],
        ]

        assert codes == [10001, 10003, 10002, 10004, 10005, 10001]


class TestTime:
    @pytest.mark.parametrize(
        ("at_ms", "window", "code"),
        [
            (0, "5000", 0),
            (-5000, "5000", 0),
            (-5001, "5000", 10002),
            (-5000, None, 0),
            (-5001, None, 10002),
            (-5001, "6000", 0),
            (-1, "0", 10002),
            (0, "0", 0),
            (999, "5000", 0),
            (1000, "5000", 10002),
            (1000, "60000", 10002),
        ],
    )
    def test_the_window_is_closed_behind_and_a_second_wide_ahead(self, keys, at_ms, window, code):
        headers = signed(ANN, b"a=1", at_ms=NOW // MILLISECOND + at_ms, window=window)

        assert refusal(keys, headers) == code

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X-BAPI-TIMESTAMP", "yesterday"),
            ("X-BAPI-TIMESTAMP", "1e12"),
            ("X-BAPI-TIMESTAMP", "-5"),
            ("X-BAPI-TIMESTAMP", "9" * 5000),
            ("X-BAPI-TIMESTAMP", "١٢٣"),
            ("X-BAPI-RECV-WINDOW", "wide"),
            ("X-BAPI-RECV-WINDOW", "9" * 17),
        ],
    )
    def test_what_is_no_time_is_a_parameter_error(self, keys, name, value):
        assert refusal(keys, signed(ANN, b"a=1") | {name: value}) == 10001

    def test_the_time_it_was_and_the_time_it_is_are_told(self, shared):
        answer = shared.raw_get(INFO, "", ANN, at_ms=12_345, window="4000")

        assert answer["retCode"] == 10002
        assert "req_timestamp[12345]" in answer["retMsg"]
        assert "recv_window[4000]" in answer["retMsg"]

    def test_a_skewed_clock_refuses_what_is_in_time(self, server):
        server.do(lambda inside: setattr(inside.faults, "skew_ns", 10_000 * MILLISECOND))

        assert server.get(INFO)["retCode"] == 10002


class TestSockets:
    @pytest.mark.parametrize("signer", [ANN, ANN_RSA], ids=["HMAC", "RSA"])
    def test_a_proof_counts_until_it_expires(self, keys, signer):
        for ahead, code in ((1, 0), (0, 10004), (-1, 10004)):
            expires = str(NOW // MILLISECOND + ahead)
            assert proof(keys, signer.key, expires, sign(signer, f"GET/realtime{expires}".encode())) == code

    @pytest.mark.parametrize(
        ("name", "expires", "code"),
        [("ann-key", str(NOW), 10001), ("nobody", "1800000000000", 10003), ("ann-key", "1800000000000", 10004)],
    )
    def test_a_false_one_does_not(self, keys, name, expires, code):
        assert proof(keys, name, expires, "00") == code


class TestKeys:
    @pytest.mark.parametrize(
        "key",
        [
            ApiKey(key="k", uid="1"),
            key("k", public_key="p"),
            ApiKey(key="k", uid="1", public_key="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
        ],
        ids=["nothing to sign with", "two ways to sign", "no RSA key"],
    )
    def test_a_key_that_cannot_sign_is_refused_at_once(self, key):
        with pytest.raises(ConfigError, match=r"needs either|no RSA key"):
            Keys([key], lambda: NOW)

    def test_a_key_may_be_given_once(self):
        with pytest.raises(ConfigError, match="twice"):
            Keys([ANN, ANN], lambda: NOW)

    def test_a_key_needs_an_account(self):
        with pytest.raises(ConfigError, match="7777"):
            Venue(keys=(ANN,), more_keys=(key("stray", "7777"),))


def refusal(keys, headers):
    try:
        keys.verify(headers, b"a=1")
    except Refused as refused:
        return refused.code
    return 0


def proof(keys, *args):
    try:
        keys.verify_socket(*args)
    except Refused as refused:
        return refused.code
    return 0
