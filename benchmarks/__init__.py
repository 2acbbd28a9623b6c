"""Speed and memory as ratios against what a user would write instead; `make bench` runs all of it."""
