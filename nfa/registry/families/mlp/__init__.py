"""MLPs that classify images."""
