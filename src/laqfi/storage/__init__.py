"""How a model is kept in bytes, in the file and in memory, and how it runs from them."""
