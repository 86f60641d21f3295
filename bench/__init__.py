"""Benchmarks beside named peers. `make bench` runs them: tables for people, one JSON line for programs."""
