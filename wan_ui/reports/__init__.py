"""What the whole app gives, told in figures and words: the benchmark, golden clips, the report for a bug.

Above the queue: clips are made here as for everybody, by a pipeline with a worker.
"""
