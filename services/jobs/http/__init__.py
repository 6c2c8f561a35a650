"""The queue over HTTP: the service behind the API, the API, its models, its metrics and its web page."""
