"""The V5 wire round the exchange of `hean.exchange`: REST and every socket on one port of loopback, and its levers."""
