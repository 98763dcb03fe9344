"""The firewall: constant rules in tables of our own, and what each attachment puts into their sets.

``sets`` says which sets there are, ``policy`` what an attachment asks for, ``elements`` what that puts into which set,
``ruleset`` the tables as text. All pure; ``kernel.nft`` carries it out.
"""
