"""``trainkit sweep``."""
