"""Export of SAM 2 to ONNX graphs and engines; needs torch, and is never imported by the runtime."""
