"""The folder that `sage-obs run` puts on PYTHONPATH. Nothing else may live in it: programs could import it by its bare name."""
