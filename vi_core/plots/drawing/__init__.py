"""What all figures share: style with writing to a file, panels, series of numbers."""
