"""Configuration of the laboratory, as YAML: one folder for each noun, and `experiment/` for what combines them."""
