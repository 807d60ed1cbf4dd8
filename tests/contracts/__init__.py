"""What holds for every part, the sources, the documents and the wheel."""
