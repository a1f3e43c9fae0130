"""Keys from a file: whose they are, what they may, and what is said of those that make no sense."""

import pytest
from Crypto.PublicKey import RSA
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP

from actors.exchange import drills
from actors.exchange.key_file import read_keys
from actors.exchange.opening import Plan
from hean.errors import ConfigError

UIDS = ["10000001", "10000002"]


def written(tmp_path, text):
    path = tmp_path / "keys.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_read_only_key_looks_and_an_rsa_key_trades(tmp_path):
    pair = RSA.generate(2048)
    (tmp_path / "signer.pem").write_bytes(pair.public_key().export_key())
    path = written(
        tmp_path,
        """
        [[key]]
        key = "watcher"
        secret = "may-look"
        read_only = true
        [[key]]
        key = "signer"
        public_key = "signer.pem"
        account = 2
        """,
    )
    with drills.serving(Plan(accounts=2, key_file=path)) as exchange:
        watcher = HTTP(api_key="watcher", api_secret="may-look")  # noqa: S106 (of a test)
        signer = HTTP(api_key="signer", api_secret=pair.export_key().decode(), rsa_authentication=True)
        watcher.endpoint = signer.endpoint = exchange.url
        order = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.01"}

        assert watcher.get_wallet_balance(accountType="UNIFIED")["retCode"] == 0
        with pytest.raises(InvalidRequestError) as refusal:
            watcher.place_order(**order)
        assert refusal.value.status_code == 10005
        assert signer.place_order(**order)["retCode"] == 0

        accounts = exchange.server.exchange.accounts
        assert [bool(list(accounts[uid].positions())) for uid in UIDS] == [False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[key]]\nkey = "a"', ["key.0", "either a secret or a public_key"]),
        ('[[key]]\nkey = "a"\nsecret = "s"\nreadonly = true', ["readonly", "did you mean read_only"]),
        ('[[key]]\nkey = "a"\nsecret = "s"\naccount = 3', ["account 3", "--accounts"]),
        ('[[key]]\nkey = "a"\npublic_key = "none.pem"', ["none.pem", "cannot be read"]),
        ('[[key]]\nkey = "a"\npublic_key = "keys.toml"', ["keys.toml", "no RSA key"]),
        ("[[key", ["not TOML"]),
    ],
)
def test_what_makes_no_sense_is_said_by_field(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        read_keys(written(tmp_path, text), UIDS)
    assert all(word in str(error.value) for word in words)


def test_a_private_key_is_refused(tmp_path):
    (tmp_path / "mine.pem").write_bytes(RSA.generate(2048).export_key())
    with pytest.raises(ConfigError, match="is a private key"):
        read_keys(written(tmp_path, '[[key]]\nkey = "a"\npublic_key = "mine.pem"'), UIDS)
