"""What a run leaves in its folder: files that are whole or absent, and readers that check what they read."""
