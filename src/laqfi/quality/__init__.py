"""How good images are: feature networks, statistics and their intervals."""
