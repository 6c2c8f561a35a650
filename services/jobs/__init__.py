"""The job queue. Its truth is there (states, limits, tables, store, schema); who dispatches, serves and shows it is not yet."""
