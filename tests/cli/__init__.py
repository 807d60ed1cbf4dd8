"""The command line, from arguments to files and exit codes."""
