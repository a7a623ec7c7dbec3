"""Tensorized LSTMs for sequence learning (He et al., NIPS 2017)."""

from tlstm.layer import TensorizedLSTM, TensorizedRNN

__all__ = ["TensorizedLSTM", "TensorizedRNN"]
