"""The search service: a drawing in, ranked photos out, over HTTP; and its page."""
