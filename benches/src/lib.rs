//! Benchmarks of the layers beside their peers.
