"""Data sets: tensors, provenance and a checksum."""
