"""Room for the job queue and the search service; nothing is in here yet."""
