"""The job queue: trainings and other commands as jobs of a shared cluster. `python -m services.jobs`; see docs/jobs.md."""
