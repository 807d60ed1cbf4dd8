"""The configuration: its types, checks, identity and error messages."""
