"""Single parts of the library against exact answers."""
