"""Backbone + tail + head, joined: predict, save, load, and proof that they are what was measured.

files    the .fc file: safetensors with JSON beside the tensors; no code is ever run from it
tuned    what training changed of the backbone, and a copy of it so changed
joined   the classifier itself: pictures in, probabilities out
parity   before a classifier is saved, it must give the cached logits from pixels
"""
