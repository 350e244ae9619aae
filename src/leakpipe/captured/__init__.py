"""States and updates of other people's federations: read from files, and matched to a network."""
