"""The families of models that come with the project, one folder each."""
