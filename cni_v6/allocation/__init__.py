"""Which address of a set is handed out next: policy, order, what is used, what was released. Pure."""
