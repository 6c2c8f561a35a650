"""Services around the verbs: `jobs`, the queue. The search service will be here too."""
