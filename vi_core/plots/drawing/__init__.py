"""What all figures share: style, panels, series of numbers, writing to a file."""
