"""Handles requests: in the resident engine, or in the caller's own process."""
