"""Speed, as ratios to bounds that are measured in the same run: ``python -m tests.benchmarks --help``."""
