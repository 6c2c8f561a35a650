"""The services around the verbs: the job queue and the search service."""
