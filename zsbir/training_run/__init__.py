"""One training run behind `zsbir.train`: planned, trained by its workers, signed, delivered to MLflow."""
