"""HTTP: models that answer requests."""
