"""How a model is made smaller: which tensor gets which format, and what is stored."""
