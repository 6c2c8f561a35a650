"""What is behind `zsbir.index`: photos embedded and written as an index, and indexes that grow."""
