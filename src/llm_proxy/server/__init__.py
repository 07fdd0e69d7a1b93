"""The edge towards clients: paths, access, the life of a request, pages, start and stop."""
