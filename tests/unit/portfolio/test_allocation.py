from decimal import Decimal

import pytest
from pydantic import BaseModel, ValidationError

from hean.portfolio.allocation import Shares, divide, reserve


class Holder(BaseModel):
    shares: Shares


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [
        ({"a": "0.7", "b": "0.31"}, "add up to 1.01"),
        ({"a": "-0.1"}, "greater than or equal to 0"),
        ({"a": "NaN"}, "finite"),
        ({"": "0.1"}, "name it"),
    ],
    ids=["too much", "less than nothing", "not a number", "nobody's"],
)
def test_shares_that_cannot_be_are_refused(shares, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Holder(shares=shares)


def test_what_is_not_shared_is_the_reserve_and_nothing_is_lost():
    shares = Holder(shares={"a": "0.333", "b": "0.5"}).shares
    parts, rest = divide(Decimal("100.01"), shares)

    assert reserve(shares) == Decimal("0.167")
    assert parts == {"a": Decimal("33.30333"), "b": Decimal("50.005")}
    assert rest + sum(parts.values()) == Decimal("100.01")
