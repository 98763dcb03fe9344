"""Plans: configuration, addresses and a snapshot of the kernel in, operations and the result out. Pure."""
