"""Values, speed and memory on an accelerator, in four minutes: `python -m benchmarks.device [DEVICE]`."""
