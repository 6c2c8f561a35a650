"""What is behind the verb search, and behind the search service: one opened index with its encoder."""
