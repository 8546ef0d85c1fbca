"""SAM 2 in torch, written for export: real-valued rotary embedding, fixed resolution, batched small MLPs.

Parameter names and shapes are those of the official checkpoints, so weights load without a renaming table.
"""
