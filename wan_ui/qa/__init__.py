"""Measuring and judging: the benchmark."""
