"""Training encoders on one's own rows."""
