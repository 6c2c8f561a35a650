"""The queue over HTTP: the API, its models, its metrics and its web page."""
