"""Capital to strategies: configured shares, and the reserve that is left."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field


def _checked(shares: dict[str, Decimal]) -> dict[str, Decimal]:
    if "" in shares:
        raise ValueError("a share belongs to a strategy: name it")
    total = sum(shares.values(), Decimal(0))
    if total > 1:
        raise ValueError(f"the shares add up to {total}: they may be 1 at most, and what is left is the reserve")
    return shares


Shares = Annotated[dict[str, Annotated[Decimal, Field(ge=0, le=1, allow_inf_nan=False)]], AfterValidator(_checked)]
"""The share of the account's money each strategy begins with."""


def reserve(shares: Mapping[str, Decimal]) -> Decimal:
    """The share that no strategy has."""
    return 1 - sum(shares.values(), Decimal(0))


def divide(amount: Decimal, shares: Mapping[str, Decimal]) -> tuple[dict[str, Decimal], Decimal]:
    """Divide an amount: what each strategy has, and the reserve. Nothing is rounded."""
    parts = {strategy: amount * share for strategy, share in shares.items()}
    return parts, amount - sum(parts.values(), Decimal(0))
