"""Benchmarks against named peers; `make bench` prints tables for people and one JSON line for programs."""
