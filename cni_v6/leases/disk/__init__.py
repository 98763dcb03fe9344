"""The leases of a network on disk, in the layout of the reference plugin host-local."""
