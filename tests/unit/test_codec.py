"""Messages as bytes: what goes in comes out, and what is not ours is refused."""

import typing
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean import codec
from hean.messages import Envelope, Fact, Message, Observation, PositionChanged, Quote, Side, Trade

KINDS = sorted(codec.spoken(Message), key=lambda kind: kind.__name__)
WHOLE = st.integers(-(2**63), 2**63 - 1)


def of(kind):
    """Any message of a kind, by the types of its fields."""
    # Defaults are left aside: a default that is made anew each time is none that Hypothesis knows.
    return st.builds(kind, **{name: st.from_type(of) for name, of in typing.get_type_hints(kind).items()})


def _amount():
    return st.decimals(allow_nan=False, allow_infinity=False)


st.register_type_strategy(Decimal, _amount())
st.register_type_strategy(int, WHOLE)
st.register_type_strategy(float, st.floats(allow_nan=False))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_comes_out_of_a_parcel_as_it_went_in(kind, data):
    message = data.draw(of(kind))
    sent = Envelope("broker@7", 3, 1, "trace", "cause", message)
    (found,) = codec.envelopes(codec.letters([sent]))
    assert found.message == message
    assert type(found.message) is kind
    assert str(found.message) == str(message)  # an amount keeps its digits
    assert (found.source, found.seq, found.ts_init, found.trace, found.cause) == ("broker@7", 3, 1, "trace", "cause")


def test_every_message_that_is_said_is_known():
    assert set(codec.spoken(Observation)) | set(codec.spoken(Fact)) < set(KINDS)


@given(st.lists(st.one_of(of(Quote), of(Trade)), max_size=5), st.integers(1, 2**40))
def test_rows_are_numbered_from_the_first(rows, seq):
    found = codec.envelopes(codec.rows("feed.x@2", seq, 9, rows))
    assert [(one.source, one.seq, one.ts_init, one.message) for one in found] == [
        ("feed.x@2", seq + place, 9, row) for place, row in enumerate(rows)
    ]


def test_letters_keep_their_order():
    sent = [Envelope("a@1", seq, 1, "", "", PositionChanged("s", "i", *[Decimal(seq)] * 3)) for seq in (2, 1, 3)]
    assert [one.seq for one in codec.envelopes(codec.letters(sent))] == [2, 1, 3]


@given(st.binary(max_size=60))
def test_what_is_no_parcel_is_refused(content):
    with pytest.raises(msgspec.DecodeError):
        codec.envelopes(content)


def test_a_parcel_that_was_cut_off_is_refused():
    parcel = codec.letters([Envelope("a@1", 1, 1, "", "", PositionChanged("s", "i", *[Decimal(1)] * 3))])
    for length in range(len(parcel)):
        with pytest.raises(msgspec.DecodeError):
            codec.envelopes(parcel[:length])


def test_when_a_row_was_received_goes_with_it_and_is_not_written_where_it_is_unknown():
    (row,) = codec.envelopes(codec.rows("feed.x@2", 7, 9, [Trade("i", 3, 1.0, 1.0, Side.BUY)]))
    said = Envelope("a@1", 1, 20, row.id, row.id, PositionChanged("s", "i", *[Decimal(1)] * 3), row.ts_seen)
    unknown = Envelope("a@1", 1, 20, "", "", said.message)

    assert row.ts_seen == 9
    assert codec.envelopes(codec.letters([said, unknown]))[0].ts_seen == 9
    assert b"ts_seen" not in codec.letters([unknown])
