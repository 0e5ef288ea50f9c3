"""What tests and benchmarks of any implementation need: small clusters, sample models, load, conformance."""
