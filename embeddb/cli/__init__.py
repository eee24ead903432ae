"""The command line. A module a command; ``main`` puts them together."""
