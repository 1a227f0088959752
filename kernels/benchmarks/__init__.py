"""The parts of `python -m kernels.bench`.

contest.py                what a contest is: inputs, contestants, the reference, the arithmetic to be done
attention.py              the contests of the attention operators
linear_cross_entropy.py   the contests of the loss and of scoring
measure.py                the check against float64, then interleaved rounds
report.py                 terminal, CSV, JSON, plots
"""
