"""The catalog: schema ``embeddb`` in the database, its SQL files, and what installs and upgrades it."""
