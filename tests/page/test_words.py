from decimal import Decimal

import pytest

from actors.page import words
from actors.page.words import MINUS


@pytest.mark.parametrize(
    "write", [words.money, words.signed, words.quantity, words.price, words.percent, words.basis_points, words.measured]
)
@pytest.mark.parametrize("unknown", [None, "", "nonsense", "NaN", "Infinity"])
def test_what_is_not_known_is_a_dash_and_never_nought(write, unknown):
    assert write(unknown) == words.UNKNOWN


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("1234.5", "1,234.50"),
        ("0", "0.00"),
        ("-4", f"{MINUS}4.00"),
        ("0.004", "0.004"),
        ("0.0000001", "0.0000001"),
        (Decimal("-1234567.891"), f"{MINUS}1,234,567.89"),
    ],
)
def test_money_keeps_the_digits_of_what_is_small(value, written):
    assert words.money(value) == written


def test_a_gain_says_its_sign():
    assert [words.signed(value) for value in ("12.3", "-12.3", "0")] == ["+12.30", f"{MINUS}12.30", "0.00"]


def test_a_quantity_keeps_all_its_digits_and_no_more():
    assert [words.quantity(value) for value in ("0.1200", "1200", "0", "0E-8", "-0.00000100")] == [
        "0.12",
        "1,200",
        "0",
        "0",
        f"{MINUS}0.000001",
    ]


def test_a_price_has_the_places_its_size_deserves():
    assert [words.price(value) for value in ("65000.123", "3.14159", "0.0812346")] == [
        "65,000.12",
        "3.1416",
        "0.081235",
    ]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (None, words.UNKNOWN),
        (-3.0, "0 s"),
        (0.4, "0 s"),
        (89.0, "89 s"),
        (90.0, "2 min"),
        (5400.0, "2 h"),
        (200_000.0, "2 d"),
    ],
)
def test_an_age_is_said_in_the_unit_a_person_would_use(seconds, written):
    assert words.age(seconds) == written


@pytest.mark.parametrize(
    "said", ["2026-11-23T03:15:30.193Z", "2026-11-23T04:15:30.193+01:00", 1795403730193000000, "1795403730193000000"]
)
def test_an_instant_is_read_however_it_is_written(said):
    assert words.instant(said) == pytest.approx(1795403730.193)


@pytest.mark.parametrize("said", [None, "", "yesterday", True])
def test_no_instant_is_made_up(said):
    assert words.instant(said) is None


def test_what_the_api_says_is_written_plainly():
    assert (
        words.plain({"pairs": ["BTC", "ETH"], "maker": True, "enter": 1.0, "until": None})
        == f"pairs BTC, ETH, maker yes, enter 1, until {words.UNKNOWN}"
    )


@pytest.mark.parametrize(("value", "tone"), [("0.01", "good"), ("-0.01", "bad"), ("0", ""), (None, "")])
def test_a_gain_and_a_loss_have_their_colours(value, tone):
    assert words.tone(value) == tone


def test_a_count_has_its_noun():
    assert [words.counted(count, "signal") for count in (0, 1, 1200, None)] == [
        "0 signals",
        "1 signal",
        "1,200 signals",
        f"{words.UNKNOWN} signals",
    ]


def test_the_venue_is_left_out_of_what_is_said_of_an_instrument():
    assert (
        words.brief("holds -0.006 BTCUSDT-LINEAR.BYBIT and 0.1 1000PEPEUSDT-SPOT.BYBIT.")
        == "holds -0.006 BTCUSDT-LINEAR and 0.1 1000PEPEUSDT-SPOT."
    )
