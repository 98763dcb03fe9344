"""Answers for operators: how a prefix is split, how fast addresses are used. Pure."""
