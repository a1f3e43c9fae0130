"""Why the exchange refuses what a client asks: Bybit's own codes and words.

Source: Bybit v5, *Error Codes*; texts as seen on the venue where they are known. Clients switch on the code.
"""

from decimal import Decimal

from hean.errors import HeanError


class Refused(HeanError):  # noqa: N818 (the word of the trade, as in SignalRefused)
    """The exchange will not do it, and nothing has changed."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"{code} {text}")


def invalid(what: str) -> Refused:
    """A parameter that is missing, malformed or out of place."""
    return Refused(10001, f"params error: {what}")


def unknown_order(action: str, *, spot: bool) -> Refused:
    """`action` is "cancel" or "replace"."""
    if spot:
        return Refused(170213, "Order does not exist.")
    return Refused(110001, f"order not exists or too late to {action}")


def duplicate_link_id(*, spot: bool) -> Refused:
    return Refused(170141, "Duplicate clientOrderId") if spot else Refused(110072, "OrderLinkedID is duplicate")


def no_margin() -> Refused:
    return Refused(110007, "ab not enough for new order")


def no_balance() -> Refused:
    return Refused(170131, "Insufficient balance.")


def out_of_band(*, spot: bool, buys: bool, bound: Decimal, quote: str) -> Refused:
    if not spot:
        return Refused(110003, "Order price exceeds the allowable range.")
    if buys:
        return Refused(170132, f"Buy order price cannot be higher than {bound:f}{quote}.")
    return Refused(170133, f"Sell order price cannot be lower than {bound:f}{quote}.")


def not_modified() -> Refused:
    return Refused(34040, "not modified")
