"""The command line: one command per stage, each parse → load → one library call → save."""
