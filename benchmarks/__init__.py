"""Published tables as data, and the protocols that reproduce them."""
