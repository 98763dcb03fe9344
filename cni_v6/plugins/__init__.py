"""One module for each CNI type."""
