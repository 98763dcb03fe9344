"""Configuration, addresses and a snapshot of the kernel become operations and the result. Pure."""
