"""The benchmark: runtime per timestep, side by side with peers.

`python -m tlstm.bench` measures and records; it needs no more than torch, numpy, pydantic and
rich. Its records become tables and pictures elsewhere (`python -m tlstm.results collect`,
`python -m tlstm.figures runtime`).
"""
