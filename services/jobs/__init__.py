"""The job queue: submit, wait, survive, explain. `python -m services.jobs`; docs/jobs.md says how it stays true."""
