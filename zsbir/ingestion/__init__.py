"""What is behind `zsbir.ingest`: the plan of a data set, and the data set made by it."""
