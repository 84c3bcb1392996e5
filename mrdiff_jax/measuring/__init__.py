"""How fast programs are and what they need, measured; for the tools that report it."""
