"""Results of a run: entries of summary.json, checks, the table on the terminal, figures, and how files are written.

`summary` has the entries that every fit has; `diagnostics`, `mixtures` and `diffusion` add what only
some models or settings have. `expectations` compares with an experiment's expected numbers, `table` prints, `figures`
draws while a run ends, and again from its folder; `files` reads and writes.
"""
