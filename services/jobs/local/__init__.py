"""The job service on one machine: `up` starts its programs, a keeper restarts them when they end, `down` ends them."""
