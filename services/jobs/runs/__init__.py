"""Running jobs: their steps, the folder of each attempt, the executors, and the dispatcher that ties them together."""
