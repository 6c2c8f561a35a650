"""Services around the verbs: `jobs`, the queue, of which the store is there. The search service will be here too."""
