"""Published data sets of images."""
