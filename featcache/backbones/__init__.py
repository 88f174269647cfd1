"""Which pretrained networks exist, who they are, and where they can be cut.

`registry` loads and lists networks, `identity` names their tensors, `cuts` splits them in stem and
tail. Importing this package alone imports no torch.
"""
