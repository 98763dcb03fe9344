"""The firewall: constant rules in two tables of our own, and the elements that each attachment adds to their sets.

``sets`` defines the sets, ``policy`` what an attachment needs, ``elements`` the elements of a policy, ``ruleset`` the
tables as text. All pure; ``kernel.apply_firewall`` applies it.
"""
