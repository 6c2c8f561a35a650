"""The queue from the command line and from Python, over HTTP."""
