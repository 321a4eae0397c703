"""The version, at the bottom of the house so that every floor may name it."""

__version__ = "0.1.0"
