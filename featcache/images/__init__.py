"""Where samples come from (`sources`), how a file becomes pixels (`decode`), what is done to them.

`sources` and `decode` never import torch; `transforms` does.
"""
