"""Where keys come from, and who may read them."""

import pytest

from actors.keys import LOOPBACK, keys_for, read_keys
from hean.engine_settings import VenueMode
from hean.errors import ConfigError

FILE = 'key = "the-key"\nsecret = "the-secret"\n'


def written(path, text=FILE, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_keys_that_others_may_read_are_refused_with_a_remedy(tmp_path, mode):
    path = written(tmp_path / "keys.toml", mode=mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        read_keys(path)


def test_keys_come_from_the_file_that_is_named_then_the_environment_then_the_home(tmp_path):
    named = written(tmp_path / "named.toml", FILE.replace("the-key", "named"))
    home = tmp_path / "live"
    home.mkdir()
    written(home / "keys.toml", FILE.replace("the-key", "home"))
    pair = {"BYBIT_API_KEY": "environment", "BYBIT_API_SECRET": "s"}

    def key(environment, mode=VenueMode.LIVE):
        return keys_for(mode, home, environment).key

    assert key({"HEAN_KEYS": str(named)} | pair) == "named"
    assert key(pair) == "environment"
    assert key({}) == "home"
    assert key({"HEAN_KEYS": str(named)} | pair, VenueMode.SANDBOX) == LOOPBACK.key


def test_half_a_pair_in_the_environment_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="BYBIT_API_SECRET is not set"):
        keys_for(VenueMode.LIVE, tmp_path, {"BYBIT_API_KEY": "k"})


def test_no_keys_at_all_is_an_error_that_says_where_to_write_them(tmp_path):
    with pytest.raises(ConfigError, match=r"keys\.toml cannot be read.*write key ="):
        keys_for(VenueMode.DEMO, tmp_path, {})


def test_a_key_that_signs_with_rsa_has_its_secret_in_a_file_beside(tmp_path):
    path = written(tmp_path / "keys.toml", 'key = "k"\nsecret_file = "mine.pem"\n')
    pem = written(tmp_path / "mine.pem", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n")
    assert read_keys(path).rsa
    pem.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mine\.pem may be read by others"):
        read_keys(path)
    written(pem, "-----BEGIN PUBLIC KEY-----\n")
    with pytest.raises(ConfigError, match="no RSA private key"):
        read_keys(path)


@pytest.mark.parametrize(
    "text", ['key = "the-key"', 'secret = "the-secret"', FILE + 'secret_file = "x"', FILE + "sceret = 1", "key = the"]
)
def test_a_file_that_lacks_something_is_refused_without_being_quoted(tmp_path, text):
    path = written(tmp_path / "keys.toml", text)
    with pytest.raises(ConfigError) as refused:
        read_keys(path)
    assert "the-secret" not in str(refused.value)
    assert "the-key" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_keys_are_not_shown(tmp_path):
    keys = read_keys(written(tmp_path / "keys.toml"))
    assert "the-" not in f"{keys} {keys!r}"
