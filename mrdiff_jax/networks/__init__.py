"""The networks: layers, and what is built of them."""
