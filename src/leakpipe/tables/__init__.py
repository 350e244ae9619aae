"""Tables of results: reading and writing them, statistics, comparisons."""
