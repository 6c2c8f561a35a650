"""Public photos and drawings from their publishers, behind `zsbir.download`."""
