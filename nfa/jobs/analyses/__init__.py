"""What is computed on the checkpoints of runs, whatever was trained."""
