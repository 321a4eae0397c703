"""The one adapter between the schema and the machine: config in, objects out. No other module knows both."""
