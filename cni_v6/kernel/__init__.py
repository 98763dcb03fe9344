"""The kernel: operations and questions as values, what carries them out, and a fake that does the same."""
