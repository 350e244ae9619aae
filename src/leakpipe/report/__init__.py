"""The report page: one self-contained HTML file that says what leaked, how that was measured, and what was run."""
