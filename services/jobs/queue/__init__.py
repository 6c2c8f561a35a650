"""The queue's truth: jobs, attempts, limits and tokens in a database, and the rules of every change."""
