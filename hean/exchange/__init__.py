"""A Bybit as a deterministic machine: told what clients ask, what the market does and what time it is, it says what happened.

No clock, no socket, no chance but a seed's: `actors/exchange` puts the V5 wire round it. Its rules of matching, fees,
margin and funding are those of `hean/execution`, which backtests are filled by. To be read in this order:

    words        orders, executions, and what is said of them
    listing      what may be traded, with what the wire says of it
    account      one client: coins, positions, what is set aside; the figures of a wallet
    exchange     the face: everything that a client, the market or time can do
      entry        what must be true of an order before it exists
      matching     orders meet, price first and then time
      triggers     orders that wait for a price, and the exits of positions
      clearing     the money of it all, and its records
      liquidation  what happens when the money is gone
    market       one instrument: its book (`hean/execution/price_time_book.py`), its prices, its candles
      pricing      index, mark, premium, funding rate
      candles      minutes, and what is made of them
    sources      what the market does by itself: made up from a seed, or replayed from the catalog
    background   the house, which keeps in the books what a source wants there
    bybit        all of it together, moved by `advance`
"""
