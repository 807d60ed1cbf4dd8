"""The report page, in HTML: of all experiments (`reproduce`) or of one run or sweep (`render`).

`plan` chooses experiments and their commands, `runner` runs them, `read` turns their folders into the `records` of a
page, and `render` writes the page.
"""
