"""The benchmark: runtime per timestep of the layer and of its peers.

`python -m tlstm.bench` measures and records; it needs no more than torch, numpy, pydantic and
rich. `python -m tlstm.results collect` and `python -m tlstm.figures runtime` make pictures of it.
"""
