"""The only modules that import Ray or MLflow."""
