"""The only modules of this package that import Ray or MLflow."""
