"""The three losses of the method, further ones by name, and their weighted sum.

Legend of shapes: b batch, d embedding dimension, c seen classes, t teacher labels.
"""
