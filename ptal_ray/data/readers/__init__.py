"""Readers of released folders: README.md has each layout with its command."""
