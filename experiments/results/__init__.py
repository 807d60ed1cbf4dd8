"""What a run found, in numbers, tables and figures."""
