"""The provenance of every file: run records, code versions, DVC's metadata, the research object crate, verification."""
