"""Addresses, prefixes and intervals as values. Pure."""
