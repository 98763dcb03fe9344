"""The same kernel in dictionaries, for tests and dry runs."""
