"""Files: tensors and their sidecars, text written whole or not at all, the log of what a job reads and writes."""
