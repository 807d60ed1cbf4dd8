"""The report page: what it shows, how that is read from folders and run, and how it becomes HTML."""
