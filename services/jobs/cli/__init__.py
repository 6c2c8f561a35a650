"""The job queue's clients, on the command line and in Python, which speak HTTP to its API."""
