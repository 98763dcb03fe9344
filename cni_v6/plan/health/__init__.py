"""What is wrong with a node, by facts that ``cni-v6ctl doctor`` has read. Pure: facts in, findings out."""
