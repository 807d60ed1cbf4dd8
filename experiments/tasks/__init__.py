"""What the command line does: one task per file, chosen with `task=<name>`."""
