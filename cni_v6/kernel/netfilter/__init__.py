"""nf_tables and conntrack: a netfilter socket, and messages as bytes."""
