"""What is kept: the tape of the market (catalog) and what each node was told (journal)."""
