//! End-to-end tests of dcv-operator: the harness.
