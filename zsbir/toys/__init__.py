"""Data drawn by program, for the demo and the tests: photos and sketches of objects, and the pretext shapes."""
