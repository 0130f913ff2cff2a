"""Random input for everything that reads what strangers send: `make fuzz`.

Each target states what must hold of its answers. The unit tests run every target without a server for one round, so
that none of them rots; a find of a long run becomes a test of its own.
"""
