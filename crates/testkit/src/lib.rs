//! Operations, an oracle and drivers for the tests of every layer.
