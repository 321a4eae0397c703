"""The networks of trainkit: built from plain values, made of standard ``torch.nn`` modules."""
