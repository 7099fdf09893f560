"""One module a command: its options, one library call, what it prints. Nothing heavy on import."""
