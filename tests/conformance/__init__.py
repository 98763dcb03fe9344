"""Kubernetes' own network tests with our plugin and agent: ``make conformance``, docs/benchmarks/kubernetes."""
