"""The network configuration: JSON becomes frozen values; the table of keys; the JSON Schema. Pure."""
