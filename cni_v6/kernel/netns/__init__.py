"""Network namespaces: entering one, and which are alive."""
