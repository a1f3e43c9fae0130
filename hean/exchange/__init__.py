"""A Bybit as a deterministic machine: told what clients ask, what the market does and what time it is, it says what happened.

No clock, no socket, no chance: `actors/exchange` puts the V5 wire round it. Its rules of matching, fees,
margin and funding are those of `hean/execution`, which backtests are filled by.

    words      orders, executions, and what is said of them
    listing    what may be traded, with what the wire says of it
    market     one instrument: its book, its prices, its premium
    account    one client: coins, positions, orders, link ids
    exchange   the face: everything a client or the market can do
"""
