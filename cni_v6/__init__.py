"""cni-v6: CNI plugins for IPv6 and dual-stack container networks. Imports nothing: the executables pay for it."""

__version__ = "0.1.0"
