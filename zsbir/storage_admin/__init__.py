"""The care of a storage root: its artifacts and their lineage, checks, copies, and the removal of what nothing needs."""
