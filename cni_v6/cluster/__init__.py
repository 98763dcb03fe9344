"""A node's part in a cluster: blocks of addresses claimed from pools, routes to the blocks of the other nodes."""
