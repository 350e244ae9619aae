"""How each file came about: run records, code versions, DVC's metadata, the research object crate, verification."""
