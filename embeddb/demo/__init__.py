"""The demo application: a small library of short texts, declared as a team would declare its own."""
