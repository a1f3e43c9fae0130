"""The page: a process of its own on port 3000 that knows the engine only by its API."""
