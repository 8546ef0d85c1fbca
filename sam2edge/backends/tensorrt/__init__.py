"""Engines of TensorRT and TensorRT-RTX, and the device memory they run in."""
