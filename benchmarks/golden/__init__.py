"""What every entry point makes at tiny size, to be the same before and after a change that shall change nothing.

`python -m benchmarks.golden --write` plays all and stores the record; without `--write` it plays again and compares.
Nothing here imports nfa, except for `watched`, which is played as a process: the stores are read with MLflow's client.
"""
