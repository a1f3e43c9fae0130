"""The code that blocks: each gateway owns its wire and its waiting, and decides nothing."""
