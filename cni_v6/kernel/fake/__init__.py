"""A fake kernel in memory, for tests and ``cni-v6ctl plan``."""
