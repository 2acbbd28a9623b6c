"""The application on top of the library: tracked trainings, analyses of their checkpoints, and parameter searches."""
