"""One run: its process, its training and its files."""
