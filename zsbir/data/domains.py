"""The two domains of a data set and the splits of its classes, in the order of their ids."""

DOMAINS = ("photo", "sketch")
"""Position in this tuple = domain id."""

SPLITS = ("train", "dev", "unseen")
"""`train` and `dev` are seen classes; `dev` = held out as pseudo-unseen; `unseen` is opened by evaluation alone."""
