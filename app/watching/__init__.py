"""The parts of the page Watch: what happens now, the answer, and what stands behind it.

Only `now` and `machine` are drawn again while a run is active; the others change with a round, and are kept by round.
"""
