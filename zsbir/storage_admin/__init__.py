"""What lies in a storage root: its artifacts and their lineage, checks, copies, and what may go."""
