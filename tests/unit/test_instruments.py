"""The rules of one instrument, and the border between measurements and obligations."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.execution.market import INSTRUMENTS, SPOT


@given(st.decimals("-1e6", "1e6", allow_nan=False), st.decimals("0.9", "1", allow_nan=False))
def test_what_can_be_traded_of_a_holding_has_the_digits_of_a_step(held, share):
    instrument = INSTRUMENTS[SPOT]
    whole = instrument.whole_steps(held / share)
    assert whole.as_tuple().exponent == instrument.step.as_tuple().exponent
    assert whole % instrument.step == 0
    assert 0 <= (held / share - whole).copy_sign(Decimal(1)) < instrument.step
    assert abs(whole) <= abs(held / share)
