"""What is done before a version is given to others."""
