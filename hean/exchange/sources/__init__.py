"""What the market of the exchange does by itself: made up from a seed, or replayed from a tape.

source      what a source says: the book it wants shown, and the takers that come
ladder      a book around a reference price, for sources that know none
generated   a made-up market
replayed    a recorded one
"""
