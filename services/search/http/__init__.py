"""The search service over HTTP: routes, requests, answers, and the page."""
