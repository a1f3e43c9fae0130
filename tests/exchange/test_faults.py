"""The bookkeeping of what goes wrong on purpose."""

from random import Random

import pytest

from actors.exchange.faults import Faults, LossFault, Storm, StormFault, StreamFault, told

BOOK = "orderbook.50.BTCUSDT"
SECOND = 1_000_000_000


class Clock:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def faults(clock):
    return Faults(clock, Random(7))


def delta(number):
    return f'{{"topic":"{BOOK}","type":"delta","u":{number}}}'


def said(faults, numbers, topic=BOOK, kind="public", to="a"):
    """The numbers that come out for numbers put in, in order."""
    return [
        int(text.rpartition(":")[2].rstrip("}"))
        for number in numbers
        for _, text in faults.outgoing(topic, delta(number), kind, to)
    ]


def test_lets_everything_through_until_armed(faults):
    assert faults.quiet
    assert said(faults, range(5)) == [0, 1, 2, 3, 4]
    assert faults.refuses("/v5/order/create", "1") is None
    assert not faults.loses("/v5/order/create")
    assert faults.pongs
    assert faults.skew_ns == 0


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        (StreamFault(verb="drop"), []),
        (StreamFault(verb="drop", every=3), [1, 2, 4, 5]),
        (StreamFault(verb="drop", next=2), [3, 4, 5, 6]),
        (StreamFault(verb="repeat", next=1), [1, 1, 2, 3, 4, 5, 6]),
        (StreamFault(verb="repeat", every=3, times=2), [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]),
        (StreamFault(verb="reorder", next=1), [2, 1, 3, 4, 5, 6]),
        (StreamFault(verb="reorder"), [2, 1, 4, 3, 6, 5]),
        (StreamFault(verb="reorder", every=3), [1, 2, 4, 3, 5]),
        (StreamFault(verb="drop", part="delta", topic="orderbook.*", kind="public"), []),
        (StreamFault(verb="drop", part="snapshot"), [1, 2, 3, 4, 5, 6]),
        (StreamFault(verb="drop", topic="tickers.*"), [1, 2, 3, 4, 5, 6]),
        (StreamFault(verb="drop", kind="private"), [1, 2, 3, 4, 5, 6]),
        (StreamFault(verb="drop", chance=0.0), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_strikes_as_armed(faults, fault, heard):
    faults.arm(fault)

    assert said(faults, range(1, 7)) == heard


def test_delays_add_up_and_keep_what_is_repeated(faults):
    faults.arm(StreamFault(verb="repeat"))
    faults.arm(StreamFault(verb="delay", delay_s=0.5))
    faults.arm(StreamFault(verb="delay", delay_s=0.25))

    assert faults.outgoing("order", "{}", "private") == [(0.75, "{}"), (0.75, "{}")]


def test_distance_is_added_to_everything_and_reorders_nothing(faults):
    faults.move_away(0.05)

    assert faults.outgoing("order", "{}", "private") == [(0.05, "{}")]
    assert faults.answer_delay_s == 0.05
    assert faults.ack_delay_s == pytest.approx(0.07)

    faults.arm(StreamFault(verb="reorder", next=1))
    faults.outgoing(BOOK, "1", "public")
    assert faults.outgoing(BOOK, "2", "public") == [(0.05, "2"), (0.05, "1")]


def test_chance_is_that_of_the_seed(clock):
    heard = []
    for _ in range(2):
        faults = Faults(clock, Random(3))
        faults.arm(StreamFault(verb="drop", chance=0.5))
        heard.append(said(faults, range(100)))

    assert heard[0] == heard[1]
    assert 30 < len(heard[0]) < 70


def test_every_counts_each_stream_by_itself(faults):
    faults.arm(StreamFault(verb="drop", every=2))

    assert said(faults, [1], to="a") == [1]
    assert said(faults, [1], to="b") == [1]
    assert said(faults, [2], to="a") == []
    assert said(faults, [2], to="b") == []


def test_next_counts_all_streams_together_and_is_then_spent(faults):
    faults.arm(StreamFault(verb="drop", next=3))

    assert said(faults, [1, 2], to="a") == []
    assert said(faults, [1, 2], to="b") == [2]
    assert said(faults, [3], to="b") == [3]
    assert faults.quiet


def test_what_is_held_back_for_one_connection_never_reaches_another(faults):
    faults.arm(StreamFault(verb="reorder", next=1))

    assert said(faults, [1], to="a") == []
    assert said(faults, [2], to="b") == [2]
    assert said(faults, [3], to="a") == [3, 1]


def test_what_is_held_back_goes_out_after_the_release(faults):
    fault = StreamFault(verb="reorder")
    faults.arm(fault)
    assert said(faults, [1]) == []

    faults.release(fault)

    assert not faults.quiet
    assert said(faults, [2]) == [2, 1]
    assert faults.quiet


def test_forgets_what_is_held_back_for_a_connection_that_is_gone(faults):
    fault = StreamFault(verb="reorder")
    faults.arm(fault)
    said(faults, [1])
    faults.release(fault)

    faults.forget("a")

    assert faults.quiet


def test_forgets_what_it_counted_for_a_connection_that_is_gone(faults):
    fault = StreamFault(verb="drop", every=2)
    faults.arm(fault)
    said(faults, [1], to="a")
    said(faults, [1], to="b")

    faults.forget("a")

    assert set(fault.seen) == {("b", BOOK)}


def test_a_stream_fault_ends_at_its_time(faults, clock):
    faults.arm(StreamFault(verb="drop", ts_until=SECOND))
    assert said(faults, [1]) == []

    clock.now = SECOND

    assert said(faults, [2]) == [2]
    assert faults.quiet


def test_a_storm_refuses_so_many_requests_of_its_path(faults):
    faults.arm(StormFault(storm=Storm(ret_code=10006), path="/v5/order/", next=2))

    answers = [
        faults.refuses(path, None) for path in ("/v5/order/create", "/v5/market/time", *["/v5/order/cancel"] * 2)
    ]

    assert answers == [Storm(ret_code=10006), None, Storm(ret_code=10006), None]


def test_a_storm_passes_with_time(faults, clock):
    faults.arm(StormFault(storm=Storm(http_status=502), ts_until=SECOND))
    assert faults.refuses("/v5/market/time", None) == Storm(http_status=502)

    clock.now = SECOND

    assert faults.refuses("/v5/market/time", None) is None


def test_a_storm_over_one_account_spares_the_others(faults):
    faults.arm(StormFault(storm=Storm(ret_code=10016), uid="1"))

    assert faults.refuses("/v5/order/create", "2") is None
    assert faults.refuses("/v5/order/create", None) is None
    assert faults.refuses("/v5/order/create", "1") == Storm(ret_code=10016)


def test_loses_the_answers_of_the_next_few(faults):
    faults.arm(LossFault(path="/v5/order/create", next=1))

    asked = ("/v5/order/cancel", "/v5/order/create", "/v5/order/create")
    assert [faults.loses(path) for path in asked] == [False, True, False]


def test_a_released_fault_strikes_no_more_and_may_be_released_again(faults):
    armed = [StreamFault(verb="drop"), StormFault(storm=Storm(ret_code=10016)), LossFault(path="/", next=9)]
    for fault in armed:
        faults.arm(fault)
    for fault in armed * 2:
        faults.release(fault)

    assert faults.quiet
    assert faults.refuses("/v5/", None) is None
    assert not faults.loses("/v5/")


def test_effects_are_told_in_sentences(faults):
    drop = StreamFault(verb="drop", next=3)
    private = StreamFault(verb="delay", kind="private", delay_s=1)
    storm = StormFault(storm=Storm(http_status=403), next=1)
    loss = LossFault(path="/v5/order/create", next=1)
    for fault in (drop, private, storm, loss):
        faults.arm(fault)
    said(faults, range(3))
    faults.outgoing("wallet", "{}", "private")
    faults.refuses("/v5/{odd}", None)
    faults.loses("/v5/order/create")

    assert [told(fault.effects) for fault in (drop, private, storm, loss)] == [
        [f"dropped 3 deltas of {BOOK}"],
        ["delayed 1 message of wallet"],
        ["refused 1 request of /v5/{odd} with HTTP 403"],
        ["lost 1 answer of /v5/order/create"],
    ]


def test_an_answer_on_the_trade_socket_is_not_sent_twice_as_far(faults):
    """It waits for its acknowledgement to be due, and the distance is part of that."""
    faults.move_away(0.2)

    ((answered_s, _),) = faults.outgoing("order.create", "{}", "trade", "a")
    ((pushed_s, _),) = faults.outgoing("order", "{}", "private", "a")

    assert faults.ack_delay_s + answered_s == pytest.approx(0.22)
    assert pushed_s == pytest.approx(0.2)
