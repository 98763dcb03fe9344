"""rtnetlink: sockets, and messages as bytes."""
