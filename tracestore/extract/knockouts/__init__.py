"""Knockouts: run the real model with something removed and read what that changes."""
