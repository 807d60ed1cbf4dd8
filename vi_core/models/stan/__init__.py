"""Models that are programs in the language Stan."""
