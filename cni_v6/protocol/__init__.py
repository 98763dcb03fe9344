"""The CNI specification: environment and stdin become an Invocation; a Result becomes JSON. Pure."""
