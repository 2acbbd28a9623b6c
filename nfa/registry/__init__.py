"""The application: tracked trainings, analyses of their checkpoints, and searches, on top of the library."""
