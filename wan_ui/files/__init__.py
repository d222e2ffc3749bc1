"""Weight files: where they lie, what is in them, their names, fetching and quantising."""
