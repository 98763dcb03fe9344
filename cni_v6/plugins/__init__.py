"""One module a CNI type."""
