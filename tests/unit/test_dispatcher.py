"""What a component may say, and what is said of one that says something else."""

from collections.abc import Iterator
from typing import Never

import pytest
from msgspec import Struct

from hean.dispatcher import Dispatcher
from hean.errors import ContractError
from hean.messages import Envelope, Leg, Signal, SignalRefused, Wake
from hean.topology import Node, Topology


class Desk:
    def __init__(self):
        self.heard = []

    def handle(self, message: Signal, now: int) -> Iterator[Never]:
        self.heard.append(message)
        return iter(())


class Speaker:
    """Says what it is given to say."""

    def __init__(self, *words):
        self.words = words

    def handle(self, message: Wake, now: int) -> Iterator[Signal]:
        return iter(self.words)


class Silent(Speaker):
    def handle(self, message: Wake, now: int) -> Iterator[Signal]:
        return None


class Single(Speaker):
    def handle(self, message: Wake, now: int) -> Iterator[Signal]:
        return self.words[0]


class Clumsy(Speaker):
    def handle(self, message: Wake, now: int) -> Iterator[Signal]:
        raise TypeError("an int is no str")


def signal(name):
    return Signal(
        strategy=name,
        legs=(Leg("BTCUSDT-LINEAR.BYBIT", 1.0, 1.0, 0),),
        reason="",
        edge_bp=None,
        volatility=None,
        bracket=None,
        context="",
    )


class Sent(Struct):
    """What the desk heard, and what was logged."""

    heard: list
    log: list


def wake(speaker, name="speaker", warm=False):
    desk, log = Desk(), []
    topology = Topology((Node(name, "strategy"), Node("risk", "risk")))
    dispatcher = Dispatcher(topology, {name: speaker, "risk": desk}, log=log.append)
    host = dispatcher.hosts[name]
    if warm:
        dispatcher.warm(host, Wake(), 1)
    else:
        dispatcher.wake(host, 1)
    return Sent(desk.heard, log)


def test_what_it_promised_to_say_is_heard():
    assert wake(Speaker(signal("speaker"))).heard == [signal("speaker")]


def test_what_it_never_promised_to_say_is_refused():
    refused = SignalRefused("speaker", "BTCUSDT-LINEAR.BYBIT", "rule", "1", "2")
    with pytest.raises(ContractError, match="speaker says SignalRefused, and its handle is annotated to say Signal"):
        wake(Speaker(refused))


def test_what_is_no_message_is_refused():
    with pytest.raises(ContractError, match="speaker says str"):
        wake(Speaker("buy"))


def test_a_strategy_speaks_in_its_own_name_every_time():
    with pytest.raises(ContractError, match="speaker signs a Signal as 'another'"):
        wake(Speaker(signal("speaker"), signal("another")))


@pytest.mark.parametrize("warm", [False, True], ids=["told", "warming up"])
@pytest.mark.parametrize(
    ("speaker", "what"), [(Silent(), "None"), (Single(signal("speaker")), "a Signal")], ids=["None", "one message"]
)
def test_what_cannot_be_gone_through_is_named(speaker, what, warm):
    with pytest.raises(ContractError, match=rf"speaker returned {what} from handle\(Wake\)"):
        wake(speaker, warm=warm)


@pytest.mark.parametrize("warm", [False, True], ids=["told", "warming up"])
def test_its_own_mistake_is_left_as_it_is(warm):
    with pytest.raises(TypeError, match="an int is no str"):
        wake(Clumsy(), warm=warm)


def test_after_a_mistake_nothing_is_left_to_be_delivered():
    topology = Topology((Node("speaker", "strategy"), Node("risk", "risk")))
    speaker = Speaker(signal("speaker"), "buy")
    desk = Desk()
    dispatcher = Dispatcher(topology, {"speaker": speaker, "risk": desk})
    with pytest.raises(ContractError):
        dispatcher.wake(dispatcher.hosts["speaker"], 1)
    speaker.words = ()
    dispatcher.tell("speaker", Envelope("engine", 0, 2, "", "", Wake()), 2)
    assert desk.heard == []


def test_when_the_market_was_seen_is_handed_on_with_what_follows():
    desk, log = Desk(), []
    topology = Topology((Node("speaker", "strategy"), Node("risk", "risk")))
    dispatcher = Dispatcher(topology, {"speaker": Speaker(signal("speaker")), "risk": desk}, log=log.append)

    dispatcher.tell("speaker", Envelope("feed", 4, 3, "", "", Wake(), 3), 9)
    dispatcher.tell("speaker", Envelope("engine", 1, 4, "", "", Wake()), 9)

    assert [(said.trace, said.ts_seen, said.ts_init) for said in log] == [("feed:4", 3, 9), ("engine:1", 0, 9)]
