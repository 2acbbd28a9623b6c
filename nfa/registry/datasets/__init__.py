"""Published image data sets."""
