"""Metamorphic tests of references: what must meet them, what must not, and what nothing can meet."""
