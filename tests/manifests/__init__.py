"""What is deployed, as tests read it: Kubernetes objects with their schemas, and what network policies let through."""
