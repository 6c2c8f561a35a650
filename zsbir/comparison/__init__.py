"""What is behind the verb compare: reports grouped into settings, their numbers, and tables of those."""
