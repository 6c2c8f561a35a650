"""Metrics by their full names, protocols as values, and the pictures of a report."""
