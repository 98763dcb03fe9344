"""Requests handled: by the resident engine, or in the caller's own process."""
