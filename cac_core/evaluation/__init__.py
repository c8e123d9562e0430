"""Agreement of scores with a reference, and the errors of a model lesion by lesion."""
